//! Where training stands: all that a checkpoint needs besides tensors.

use super::early_stop::EarlyStop;
use super::safeguard::Safeguard;
use super::validation::ValidationHistory;
use serde::{Deserialize, Deserializer, Serialize};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Optimiser steps taken so far.
    pub step: usize,
    /// Learning rate of the epoch's last step, of the backbone or, when it is frozen, of the head.
    pub lr: f64,
    /// Mean over the epoch, on augmented images, while the parameters moved; NaN, in the file `null`, when each of its
    /// few steps was skipped.
    #[serde(deserialize_with = "number_or_nan")]
    pub train_loss: f64,
    /// Likewise, as a fraction.
    #[serde(deserialize_with = "number_or_nan")]
    pub train_accuracy: f64,
    /// After the epoch, without smoothing or class weights; none without validation images.
    pub val_loss: Option<f64>,
    /// Likewise, as a fraction.
    pub val_accuracy: Option<f64>,
    /// Likewise what decides which epoch is best, higher is better.
    pub val_score: Option<f64>,
    /// Training images a second, without validation; none when frozen layers had run before, since that is not the speed
    /// of the model.
    pub images_per_second: Option<f64>,
    /// Wall time of the epoch, validation included.
    pub seconds: f64,
    /// Largest resident memory of the process so far.
    pub peak_memory_bytes: Option<u64>,
}

/// JSON has no NaN: `null` stands for it.
fn number_or_nan<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

/// Sums over the part of an epoch that is done.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Running {
    /// Sum over images of their batch's mean loss; batches that were skipped do not count.
    pub loss: f64,
    /// Images classified correctly.
    pub correct: usize,
    /// Images seen.
    pub seen: usize,
    /// Wall time spent.
    pub seconds: f64,
}

/// Where training stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Finished epochs.
    pub epoch: usize,
    /// Finished batches of the epoch under way.
    pub batch: usize,
    /// Optimiser steps, skipped ones included.
    pub step: usize,
    /// Updates the optimiser really made.
    pub updates: usize,
    /// Sums over the epoch under way.
    pub running: Running,
    /// Steps in a row that were skipped because they were not finite.
    pub skipped: usize,
    /// How steps are cut and scaled.
    pub safeguard: Safeguard,
    /// The best epoch and the wait since.
    pub early_stop: EarlyStop,
    /// The finished epochs.
    pub history: Vec<EpochRecord>,
    /// Image by image, what the verdict compares; absent in checkpoints of older versions.
    #[serde(default)]
    pub validation: ValidationHistory,
    /// Whether early stopping has ended the training.
    pub stopped_early: bool,
}

impl Progress {
    /// Takes back that early stopping has ended the training, and lets it wait anew.
    pub fn wait_anew(&mut self) {
        self.stopped_early = false;
        self.early_stop.wait_anew();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_without_a_finite_step_comes_back() {
        let record = EpochRecord { epoch: 1, train_loss: f64::NAN, train_accuracy: f64::NAN, ..Default::default() };
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains("\"train_loss\":null"), "{text}");
        let read: EpochRecord = serde_json::from_str(&text).unwrap();
        assert!(read.epoch == 1 && read.train_loss.is_nan() && read.train_accuracy.is_nan());
        assert!(serde_json::from_str::<EpochRecord>("{\"epoch\":1}").is_err(), "what is absent is no null");
    }
}
