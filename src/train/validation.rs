//! How a model does on the validation images, image by image, so that epochs can be compared on the same images.

use super::early_stop::ValScore;
use crate::data::Split;
use crate::error::Result;
use crate::metrics::{Confusion, Scores, SelectionMetric, losses, sign_flip_test, t_interval};
use crate::model::{BatchSource, Model};
use serde::{Deserialize, Serialize};

/// The scores of all validation images.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// The loss without smoothing or class weights; NaN when it is not finite.
    pub scores: ValScore,
    /// The scores of each image.
    pub images: ImageScores,
}

/// The scores of single images, in the order of the split.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageScores {
    /// The cross-entropy of each; empty when one is not finite.
    pub losses: Vec<f32>,
    /// Whether each was answered right.
    pub right: Vec<bool>,
}

/// How the mean loss of the same images changed from one epoch to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossChange {
    /// The mean before.
    pub before: f64,
    /// The mean after.
    pub after: f64,
    /// The 95 % interval of the difference, by the paired t-test.
    pub interval: [f64; 2],
}

impl LossChange {
    /// After less before.
    pub fn difference(&self) -> f64 {
        self.after - self.before
    }
}

impl ImageScores {
    /// From these scores to `later` ones of the same images; none for fewer than two, or with a loss that is not finite.
    pub fn loss_change(&self, later: &Self) -> Option<LossChange> {
        let mean = |losses: &[f32]| losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
        let pairs = self.losses.iter().zip(&later.losses);
        let differences: Vec<f64> = pairs.map(|(&before, &after)| f64::from(after) - f64::from(before)).collect();
        let interval = t_interval(&differences)?;
        Some(LossChange { before: mean(&self.losses), after: mean(&later.losses), interval })
    }

    /// Whether they are scores of so many images.
    pub(super) fn are_of(&self, images: usize) -> bool {
        self.right.len() == images && (self.losses.is_empty() || self.losses.len() == images)
    }

    /// How many more images are right `later`, and the p-value of `McNemar`'s exact test.
    pub fn gain(&self, later: &Self) -> (i64, f64) {
        let pairs = self.right.iter().zip(&later.right);
        let differences: Vec<i64> = pairs.map(|(&before, &after)| i64::from(after) - i64::from(before)).collect();
        (differences.iter().sum(), sign_flip_test(&differences))
    }
}

/// The image scores of the epochs that a verdict compares; saved with a checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ValidationHistory {
    /// The epoch of the lowest loss.
    lowest: Option<(usize, ImageScores)>,
    /// The best epoch.
    best: Option<ImageScores>,
    /// The last epochs, at most [`RECENT`].
    recent: Vec<ImageScores>,
}

/// Epochs that show whether a training run still improves.
const RECENT: usize = 4;

impl ValidationHistory {
    /// Takes in an epoch's scores; `best` says whether it is the best so far.
    pub fn add(&mut self, epoch: usize, scores: ImageScores, best: bool) {
        let lower = |lowest: &(usize, ImageScores)| lowest.1.loss_change(&scores).is_some_and(|c| c.difference() < 0.0);
        if !scores.losses.is_empty() && self.lowest.as_ref().is_none_or(lower) {
            self.lowest = Some((epoch, scores.clone()));
        }
        if best {
            self.best = Some(scores.clone());
        }
        if self.recent.len() == RECENT {
            self.recent.remove(0);
        }
        self.recent.push(scores);
    }

    /// All scores that are kept.
    pub(super) fn all(&self) -> impl Iterator<Item = &ImageScores> {
        self.lowest.iter().map(|(_, scores)| scores).chain(&self.best).chain(&self.recent)
    }

    /// The epoch of the lowest mean loss, from 1, and its scores.
    pub fn lowest(&self) -> Option<(usize, &ImageScores)> {
        self.lowest.as_ref().map(|(epoch, scores)| (*epoch, scores))
    }

    /// The scores of the best epoch.
    pub fn best(&self) -> Option<&ImageScores> {
        self.best.as_ref()
    }

    /// The scores a few epochs ago, how many epochs lie between, and the last ones; none before the second epoch.
    pub fn recent(&self) -> Option<(&ImageScores, usize, &ImageScores)> {
        match self.recent.as_slice() {
            [first, between @ .., last] => Some((first, between.len() + 1, last)),
            _ => None,
        }
    }
}

/// Scores a model on the validation images, by `metric` where it is defined for their classes, else by the loss; none when
/// there are no such images.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn validate(source: &BatchSource, model: &Model, metric: SelectionMetric) -> Result<Option<Validation>> {
    if source.len(Split::Val) == 0 {
        return Ok(None);
    }
    let scored = source.score(model, Split::Val, &mut |_, _| ())?;
    let classes = scored.logits.len() / scored.labels.len();
    let scores = Scores::new(&scored.logits, &scored.labels, classes)?;
    let predicted = scores.predicted();
    let confusion = Confusion::new(&scored.labels, &predicted, classes);
    let losses = losses(&scores, 1.0);
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    let finite = losses.iter().all(|loss| loss.is_finite());
    let loss = if mean.is_finite() { mean } else { f64::NAN };
    Ok(Some(Validation {
        scores: ValScore { score: metric.score(&scores).unwrap_or(-loss), loss, accuracy: confusion.accuracy() },
        images: ImageScores {
            losses: if finite { losses.iter().map(|&loss| loss as f32).collect() } else { Vec::new() },
            right: predicted.iter().zip(&scored.labels).map(|(predicted, label)| predicted == label).collect(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(losses: &[f32]) -> ImageScores {
        ImageScores { losses: losses.to_vec(), right: losses.iter().map(|&loss| loss < 0.69).collect() }
    }

    #[test]
    fn epochs_are_compared_image_by_image() {
        let (early, late) = (scores(&[0.1, 0.5, 0.4, 0.6]), scores(&[0.2, 0.9, 0.6, 0.8]));
        let change = early.loss_change(&late).unwrap();
        assert!((change.before - 0.4).abs() < 1e-6 && (change.difference() - 0.225).abs() < 1e-6);
        // scipy.stats.t.interval(0.95, 3, 0.225, numpy.std([0.1, 0.4, 0.2, 0.2], ddof=1) / 2)
        assert!((change.interval[0] - 0.0248).abs() < 1e-3 && (change.interval[1] - 0.4252).abs() < 1e-3, "{change:?}");
        assert_eq!(early.gain(&late), (-2, 0.5));
        assert_eq!(scores(&[0.1]).loss_change(&scores(&[0.2])), None);
        assert_eq!(early.loss_change(&scores(&[])), None);
    }

    #[test]
    fn lowest_best_and_last_epochs_are_kept() {
        let mut history = ValidationHistory::default();
        assert_eq!((history.lowest(), history.recent()), (None, None));
        let epochs = [[0.9, 0.8], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8], [0.8, 0.8], [0.9, 0.9]];
        for (epoch, losses) in (1..).zip(&epochs) {
            history.add(epoch, scores(losses), epoch == 3);
        }
        history.add(7, scores(&[]), false);
        assert_eq!(history.lowest(), Some((2, &scores(&[0.3, 0.4]))));
        assert_eq!(history.best(), Some(&scores(&[0.5, 0.6])));
        assert_eq!(history.recent(), Some((&scores(&[0.7, 0.8]), 3, &scores(&[]))));
    }
}
