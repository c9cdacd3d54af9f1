//! What strategies are judged by, and on how many runs.

use crate::metrics::SelectionMetric;
use serde::Serialize;

/// The score that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The share of right answers.
    Accuracy,
    /// The mean recall of the classes.
    BalancedAccuracy,
}

impl Measure {
    /// In words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Accuracy => SelectionMetric::Accuracy.in_words(),
            Self::BalancedAccuracy => SelectionMetric::BalancedAccuracy.in_words(),
        }
    }
}

/// What is repeated for each strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeats {
    /// Trainings with so many seeds on one split.
    Seeds(usize),
    /// One training per fold, each tested on its own part of the images.
    Folds(usize),
}

impl Repeats {
    /// Runs of a strategy.
    pub fn count(self) -> usize {
        match self {
            Self::Seeds(count) | Self::Folds(count) => count,
        }
    }

    /// What they differ in.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Seeds(_) => "seeds",
            Self::Folds(_) => "folds",
        }
    }
}
