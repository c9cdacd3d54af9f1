//! What `finetune` comes to.

use super::share;
use crate::cache::CacheUse;
use crate::metrics::Inspection;
use crate::report::{key_value_table, mebibytes, thousands};
use crate::train::soup::SoupRecord;
use crate::train::wise_ft::WiseFtRecord;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `finetune --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinetuneResult {
    /// The run directory.
    pub run: PathBuf,
    /// `strategy.kind` with its keys.
    pub strategy: String,
    /// Values that learn.
    pub trainable_parameters: usize,
    /// All values.
    pub total_parameters: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// The epoch that was scored, from 1; none when no epoch was finished.
    pub best_epoch: Option<usize>,
    /// Of the best epoch.
    pub val_accuracy: Option<f64>,
    /// Of the best epoch.
    pub test_accuracy: Option<f64>,
    /// Wall time of all processes that worked on it.
    pub seconds: f64,
    /// Training images a second; none when nothing was trained.
    pub images_per_second: Option<f64>,
    /// Largest resident memory.
    pub peak_memory_bytes: Option<u64>,
    /// What was forecast.
    pub expected_memory_bytes: Option<u64>,
    /// How often frozen layers had to run; none when nothing was kept.
    pub cache: Option<CacheUse>,
    /// What became of the mean of the best epochs, when it was asked for.
    pub soup: Option<SoupRecord>,
    /// What became of the mean with the weights before training, when it was asked for.
    pub wise_ft: Option<WiseFtRecord>,
    /// When a good class is named.
    pub inspection: Option<Inspection>,
    /// The [code](crate::report::Verdict::code) of the verdict.
    pub verdict: String,
    /// The verdict in a sentence.
    pub verdict_reason: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl FinetuneResult {
    pub(super) fn table(&self) -> String {
        let count = |count: Option<usize>| count.map_or("none".to_owned(), thousands);
        let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), mebibytes);
        let verdict = match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.verdict_reason),
            None => self.verdict_reason.clone(),
        };
        let memory = format!("{} ({} expected)", bytes(self.peak_memory_bytes), bytes(self.expected_memory_bytes));
        key_value_table(&[
            ("strategy", self.strategy.clone()),
            (
                "parameters that learn",
                format!("{} of {}", thousands(self.trainable_parameters), thousands(self.total_parameters)),
            ),
            ("epochs (best)", format!("{} ({})", thousands(self.epochs), count(self.best_epoch))),
            ("validation accuracy", share(self.val_accuracy)),
            ("test accuracy", share(self.test_accuracy)),
            ("time", format!("{:.1} s", self.seconds)),
            ("training speed", format!("{:.0} images/s", self.images_per_second.unwrap_or_default())),
            ("peak memory", memory),
            ("verdict", verdict),
            ("run", self.run.display().to_string()),
        ])
    }
}
