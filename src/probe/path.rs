//! What each setting of a probe scored, on what, and which was chosen.

use super::Samples;
use super::head::first_largest;
use crate::error::{Error, Result};

/// What the settings are scored on.
#[derive(Debug, Clone)]
pub enum ValidationSamples<'a> {
    /// Samples apart from the training samples.
    HeldOut(&'a Samples<'a>),
    /// The fold of each training sample, see [`assign_folds`](crate::data::folds::assign_folds); each fold is held out once.
    Folds(&'a [usize]),
}

impl ValidationSamples<'_> {
    /// The number of divisions of these training samples.
    pub(super) fn count(&self, train: &Samples<'_>) -> Result<usize> {
        let Self::Folds(fold_of) = self else { return Ok(1) };
        let folds = fold_of.iter().max().map_or(0, |&last| last + 1);
        if fold_of.len() == train.len() && folds > 1 && (0..folds).all(|fold| fold_of.contains(&fold)) {
            return Ok(folds);
        }
        Err(Error::usage(format!("{folds} folds of {} samples do not fit {}", fold_of.len(), train.len())))
    }

    /// The samples to fit on and those held out.
    pub(super) fn split<'s>(
        &'s self,
        train: &'s Samples<'s>,
        fold: usize,
        storage: &'s mut (Vec<f32>, Vec<f32>),
    ) -> (Samples<'s>, Samples<'s>) {
        match self {
            Self::HeldOut(samples) => (train.clone(), (*samples).clone()),
            Self::Folds(fold_of) => {
                let (inside, outside): (Vec<usize>, Vec<usize>) = (0..train.len()).partition(|&i| fold_of[i] == fold);
                (train.subset(&outside, &mut storage.0), train.subset(&inside, &mut storage.1))
            }
        }
    }
}

/// One setting on one division.
pub(super) struct Score {
    /// Accuracy on the samples of the fit.
    pub train: f64,
    pub held_out: f64,
    /// The metric and the mean cross-entropy of the held-out samples.
    pub ranked: (f64, f64),
    pub objective: Option<f64>,
    pub iterations: usize,
    pub converged: bool,
}

impl Score {
    /// Of votes, which nothing is solved for.
    pub fn of_votes(train: f64, held_out: f64, ranked: (f64, f64)) -> Self {
        Self { train, held_out, ranked, objective: None, iterations: 0, converged: true }
    }
}

/// One setting over the divisions so far.
#[derive(Clone, Default)]
pub(super) struct Scored {
    train: Vec<f64>,
    held_out: Vec<f64>,
    metrics: Vec<f64>,
    losses: Vec<f64>,
    objectives: Vec<f64>,
    iterations: usize,
    failed: bool,
}

impl Scored {
    pub fn add(&mut self, score: &Score) {
        self.train.push(score.train);
        self.held_out.push(score.held_out);
        self.metrics.push(score.ranked.0);
        self.losses.push(score.ranked.1);
        self.objectives.extend(score.objective);
        self.iterations += score.iterations;
        self.failed |= !score.converged;
    }

    pub fn point(self, setting: f64) -> SettingScore {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        SettingScore {
            setting,
            train_accuracy: mean(&self.train),
            validation_accuracy: mean(&self.held_out),
            validation_score: mean(&self.metrics),
            validation_loss: mean(&self.losses),
            objective: (!self.objectives.is_empty()).then(|| mean(&self.objectives)),
            fold_accuracies: self.held_out,
            iterations: self.iterations,
            converged: !self.failed,
        }
    }
}

/// One setting's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingScore {
    /// C, k or β.
    pub setting: f64,
    /// Accuracy on the samples the probe was fitted on, mean over the folds; for votes, without the vote of the image
    /// itself.
    pub train_accuracy: f64,
    /// Accuracy on what was held out, mean over the folds.
    pub validation_accuracy: f64,
    /// The metric that settings are compared by, on what was held out, mean over the folds; higher is better.
    pub validation_score: f64,
    /// The mean cross-entropy there, mean over the folds; infinite when a fold has none. It decides between equal scores.
    pub validation_loss: f64,
    /// The accuracy on each fold; one value for a validation set.
    pub fold_accuracies: Vec<f64>,
    /// The objective, mean over the folds; none for votes.
    pub objective: Option<f64>,
    /// Newton steps over all folds; 0 for votes.
    pub iterations: usize,
    /// Whether every solve reached the tolerance.
    pub converged: bool,
}

/// The path and what was chosen from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// One point a setting, ascending.
    pub path: Vec<SettingScore>,
    /// The index of the chosen one.
    pub chosen: usize,
}

impl Selection {
    /// Chooses the best score, among equals the lowest loss, and then the smallest setting.
    pub(super) fn best(path: Vec<SettingScore>) -> Self {
        let rank = |point: &SettingScore| (point.validation_score, -point.validation_loss);
        let chosen = first_largest(&path.iter().map(rank).collect::<Vec<_>>());
        Self { path, chosen }
    }

    /// The chosen C, k or β.
    pub fn setting(&self) -> f64 {
        self.path[self.chosen].setting
    }

    /// Whether that is the first or the last of several: beyond, another may be better.
    pub fn at_edge(&self) -> bool {
        let last = self.path.len().saturating_sub(1);
        last > 0 && (self.chosen == 0 || self.chosen == last)
    }
}
