//! Which epoch is best, and when to stop waiting for a better one.

use serde::{Deserialize, Serialize};

/// Scores on the validation images, by which epochs and means of weights are compared.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ValScore {
    /// By `early_stop.metric`, higher is better.
    #[serde(default)]
    pub score: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of right answers.
    pub accuracy: f64,
}

/// What is compared, higher is better: the metric, for ties the loss, for ties of both the accuracy.
pub type Rank = [f64; 3];

impl ValScore {
    /// None when a score is not a number, which is never best.
    pub fn rank(self) -> Option<Rank> {
        let rank = [self.score, -self.loss, self.accuracy];
        (!rank.iter().any(|score| score.is_nan())).then_some(rank)
    }
}

/// The best epoch so far and the epochs since; saved with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct EarlyStop {
    best: Option<Best>,
    waited: usize,
}

/// An epoch and its scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Best {
    epoch: usize,
    rank: Rank,
}

impl EarlyStop {
    /// Takes in an epoch's scores on the validation images; true when it is the best so far.
    pub fn update(&mut self, epoch: usize, scores: ValScore) -> bool {
        let better = scores.rank().filter(|rank| self.best.is_none_or(|best| *rank > best.rank));
        match better {
            Some(rank) => {
                self.best = Some(Best { epoch, rank });
                self.waited = 0;
            }
            None => self.waited += 1,
        }
        better.is_some()
    }

    /// Whether `patience` has run out; a patience of 0 never does.
    pub fn exhausted(&self, patience: usize) -> bool {
        patience > 0 && self.waited >= patience
    }

    /// Gives patience anew, as if the last epoch had been the best.
    pub fn wait_anew(&mut self) {
        self.waited = 0;
    }

    /// The best epoch so far, from 1.
    pub fn best_epoch(&self) -> Option<usize> {
        self.best.map(|best| best.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_patience_and_breaks_ties_by_loss() {
        let mut stop = EarlyStop::default();
        let epochs = [(0.9, 0.5), (0.8, 0.7), (0.7, 0.7), (f64::NAN, 0.9), (0.9, 0.6)];
        let best: Vec<bool> = (1..)
            .zip(epochs)
            .map(|(epoch, (loss, accuracy))| stop.update(epoch, ValScore { score: accuracy, loss, accuracy }))
            .collect();
        assert_eq!(best, [true, true, true, false, false]);
        assert!(stop.exhausted(2) && !stop.exhausted(3) && !stop.exhausted(0));
        assert_eq!(stop.best_epoch(), Some(3));
    }

    #[test]
    fn the_metric_comes_first_and_loss_counts_downwards() {
        let mut stop = EarlyStop::default();
        let by_loss = |loss: f64, accuracy| ValScore { score: -loss, loss, accuracy };
        assert!(stop.update(1, by_loss(0.9, 0.5)));
        assert!(stop.update(2, by_loss(0.8, 0.4)));
        assert!(!stop.update(3, by_loss(0.85, 0.9)));
        assert!(stop.update(4, by_loss(0.8, 0.5)), "equal losses are decided by the accuracy");
        let mut balanced = EarlyStop::default();
        assert!(balanced.update(1, ValScore { score: 0.6, loss: 0.3, accuracy: 0.9 }));
        assert!(balanced.update(2, ValScore { score: 0.7, loss: 0.5, accuracy: 0.8 }));
    }
}
