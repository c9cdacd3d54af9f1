//! What each setting of a probe scored, on what, and which was chosen.

use super::Samples;
use super::head::first_largest;

/// What the settings are scored on.
#[derive(Debug, Clone)]
pub enum ValidationSamples<'a> {
    /// Samples apart from the training samples.
    HeldOut(&'a Samples<'a>),
    /// The fold of each training sample, see [`assign_folds`](crate::data::folds::assign_folds); each fold is held out once.
    Folds(&'a [usize]),
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
