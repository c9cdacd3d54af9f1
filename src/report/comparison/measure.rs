//! What strategies are judged by.

use super::{Contender, Outcomes, PREDICTIONS};
use crate::error::Result;
use crate::metrics::{SelectionMetric, UNBALANCED};
use crate::report::RunResult;
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
    /// The accuracy where all runs have chosen their epoch or setting by it, balanced accuracy where one has chosen by a
    /// metric to which classes count alike. Runs that have chosen by neither, or nothing, leave it to the classes of the
    /// images that the first was tested on.
    ///
    /// # Errors
    /// When the answers of the first run cannot be read.
    pub(super) fn of(contenders: &[&Contender]) -> Result<Self> {
        let results = contenders.iter().flat_map(|c| &c.finished).filter_map(|run| run.record.result.as_ref());
        let chosen: Vec<SelectionMetric> = results
            .filter_map(|result| match result {
                RunResult::Finetune(result) => result.metric,
                RunResult::Probe(result) => result.metric,
                RunResult::Zeroshot(_) | RunResult::LrFinder(_) => None,
            })
            .filter(|metric| *metric != SelectionMetric::LogLoss)
            .collect();
        let first = contenders.iter().flat_map(|contender| &contender.finished).next();
        let accuracy = match first {
            Some(first) if chosen.is_empty() => !Outcomes::of_run(&first.folder, PREDICTIONS)?.unbalanced(UNBALANCED),
            _ => !chosen.iter().any(|metric| metric.counts_classes_alike()),
        };
        Ok(if accuracy { Self::Accuracy } else { Self::BalancedAccuracy })
    }

    /// In words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Accuracy => SelectionMetric::Accuracy.in_words(),
            Self::BalancedAccuracy => SelectionMetric::BalancedAccuracy.in_words(),
        }
    }
}
