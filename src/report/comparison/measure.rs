//! What strategies are judged by.

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
