//! Which epoch is best, and when to stop waiting for a better one.

use super::progress::EpochRecord;
use crate::config::{EarlyStopMetric, EarlyStopSettings};
use serde::{Deserialize, Serialize};

/// The best epoch so far and the epochs since; saved with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct EarlyStop {
    best: Option<Best>,
    waited: usize,
}

/// An epoch and its score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Best {
    epoch: usize,
    score: f64,
    tie: f64,
}

impl EarlyStop {
    /// Takes in an epoch's validation loss and accuracy; true when it is the best so far.
    ///
    /// Equal accuracies are decided by the lower loss. A score that is not a number is never best.
    pub fn update(&mut self, settings: &EarlyStopSettings, epoch: usize, loss: f64, accuracy: f64) -> bool {
        let better = score(settings, loss, accuracy)
            .filter(|&(score, tie)| self.best.is_none_or(|best| (score, tie) > (best.score, best.tie)));
        match better {
            Some((score, tie)) => {
                self.best = Some(Best { epoch, score, tie });
                self.waited = 0;
            }
            None => self.waited += 1,
        }
        better.is_some()
    }

    /// Whether patience has run out; a patience of 0 never does.
    pub fn exhausted(&self, settings: &EarlyStopSettings) -> bool {
        settings.patience > 0 && self.waited >= settings.patience
    }

    /// The best epoch so far, from 1.
    pub fn best_epoch(&self) -> Option<usize> {
        self.best.map(|best| best.epoch)
    }
}

/// What is compared, higher is better: the metric, then the other one for ties. None when one is not a number.
pub fn score(settings: &EarlyStopSettings, loss: f64, accuracy: f64) -> Option<(f64, f64)> {
    let score = match settings.metric {
        EarlyStopMetric::ValAccuracy => (accuracy, -loss),
        EarlyStopMetric::ValLoss => (-loss, accuracy),
    };
    (!score.0.is_nan() && !score.1.is_nan()).then_some(score)
}

/// The epochs that were validated, best first, the earlier of equal ones first.
pub fn ranking(settings: &EarlyStopSettings, history: &[EpochRecord]) -> Vec<usize> {
    let scored = |record: &EpochRecord| Some((record.epoch, score(settings, record.val_loss?, record.val_accuracy?)?));
    let mut epochs: Vec<(usize, (f64, f64))> = history.iter().filter_map(scored).collect();
    epochs.sort_by(|(_, a), (_, b)| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
    epochs.into_iter().map(|(epoch, _)| epoch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_patience_and_breaks_ties_by_loss() {
        let settings = EarlyStopSettings { metric: EarlyStopMetric::ValAccuracy, patience: 2 };
        let mut stop = EarlyStop::default();
        let epochs = [(0.9, 0.5), (0.8, 0.7), (0.7, 0.7), (f64::NAN, 0.9), (0.9, 0.6)];
        let best: Vec<bool> = epochs
            .iter()
            .enumerate()
            .map(|(i, &(loss, accuracy))| stop.update(&settings, i + 1, loss, accuracy))
            .collect();
        assert_eq!(best, [true, true, true, false, false]);
        assert!(stop.exhausted(&settings));
        assert_eq!(stop.best_epoch(), Some(3));
        assert!(!stop.exhausted(&EarlyStopSettings { patience: 0, ..settings }));
    }

    #[test]
    fn the_first_of_the_ranking_is_the_best() {
        let scores = [(0.9, 0.5), (0.8, 0.7), (0.7, 0.7), (0.7, 0.7), (0.1, 0.2)];
        let history: Vec<EpochRecord> = (1..)
            .zip(scores)
            .map(|(epoch, (loss, accuracy))| EpochRecord {
                epoch,
                val_loss: Some(loss).filter(|_| epoch != 4),
                val_accuracy: Some(accuracy),
                ..EpochRecord::default()
            })
            .collect();
        let rank = |metric| ranking(&EarlyStopSettings { metric, patience: 0 }, &history);
        assert_eq!(rank(EarlyStopMetric::ValAccuracy), [3, 2, 1, 5]);
        assert_eq!(rank(EarlyStopMetric::ValLoss), [5, 3, 2, 1]);
    }

    #[test]
    fn loss_counts_downwards() {
        let settings = EarlyStopSettings { metric: EarlyStopMetric::ValLoss, patience: 1 };
        let mut stop = EarlyStop::default();
        assert!(stop.update(&settings, 1, 0.9, 0.5));
        assert!(stop.update(&settings, 2, 0.8, 0.4));
        assert!(!stop.update(&settings, 3, 0.85, 0.9));
    }
}
