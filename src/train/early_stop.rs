//! Which epoch is best, and when to stop waiting for a better one.

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
    fn loss_counts_downwards() {
        let settings = EarlyStopSettings { metric: EarlyStopMetric::ValLoss, patience: 1 };
        let mut stop = EarlyStop::default();
        assert!(stop.update(&settings, 1, 0.9, 0.5));
        assert!(stop.update(&settings, 2, 0.8, 0.4));
        assert!(!stop.update(&settings, 3, 0.85, 0.9));
    }
}
