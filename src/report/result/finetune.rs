//! The result of `finetune`.

use super::{share, share_within};
use crate::cache::CacheUse;
use crate::metrics::{Evaluation, Inspection, SelectionMetric};
use crate::report::{key_value_table, mebibytes, thousands};
use crate::system::shown::Shown;
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
    /// Trainable values.
    pub trainable_parameters: usize,
    /// All values.
    pub total_parameters: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// What decided which one is best, on the validation images; equal ones by the loss.
    pub metric: Option<SelectionMetric>,
    /// The epoch that was scored, from 1; none when no epoch was finished.
    pub best_epoch: Option<usize>,
    /// The accuracy of the best epoch on the validation images.
    pub val_accuracy: Option<f64>,
    /// Likewise the mean recall of the classes.
    pub val_balanced_accuracy: Option<f64>,
    /// Its accuracy on the test images.
    pub test_accuracy: Option<f64>,
    /// Its 95 % interval.
    pub test_accuracy_ci95: Option<[f64; 2]>,
    /// Its mean recall of the classes there.
    pub test_balanced_accuracy: Option<f64>,
    /// The accuracy of always naming the commonest class of the test images, or else of the validation images.
    pub baseline: Option<f64>,
    /// The class with the lowest recall there.
    pub worst_class: Option<WorstClass>,
    /// Wall time of all processes that worked on it.
    pub seconds: f64,
    /// Training images a second; none when nothing was trained, or frozen layers had run once for all epochs: it would not
    /// be the model that is so fast.
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
    /// The [verdict](crate::report::VerdictKind), as it is written.
    pub verdict: String,
    /// The scores with their uncertainty, and all that holds, in words.
    pub verdict_reason: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// The class that is found least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstClass {
    /// Its name.
    pub class: String,
    /// The share of its images that is found.
    pub recall: f64,
    /// Its images.
    pub support: u64,
}

impl WorstClass {
    /// The worst of the classes that have images; the first among equals.
    pub fn of(evaluation: &Evaluation) -> Option<Self> {
        let present = evaluation.per_class.iter().filter(|class| class.support > 0);
        let worst = present.min_by(|a, b| a.recall.total_cmp(&b.recall))?;
        Some(Self { class: worst.class.clone(), recall: worst.recall, support: worst.support })
    }
}

impl FinetuneResult {
    pub(super) fn table(&self) -> String {
        let count = |count: Option<usize>| count.map_or("none".to_owned(), thousands);
        let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), mebibytes);
        let memory = format!("{} ({} expected)", bytes(self.peak_memory_bytes), bytes(self.expected_memory_bytes));
        let best = match self.best_epoch {
            Some(best) if best == self.epochs && best > 1 => format!("{best}, the last"),
            best => count(best),
        };
        let mut rows = vec![
            ("strategy", self.strategy.clone()),
            (
                "trainable parameters",
                format!("{} of {}", thousands(self.trainable_parameters), thousands(self.total_parameters)),
            ),
            ("epochs (best)", format!("{} ({best})", thousands(self.epochs))),
            ("validation accuracy", share(self.val_accuracy)),
            ("test accuracy", share_within(self.test_accuracy, self.test_accuracy_ci95)),
            ("balanced accuracy", share(self.test_balanced_accuracy.or(self.val_balanced_accuracy))),
            ("baseline", share(self.baseline)),
            ("time", format!("{:.1} s", self.seconds)),
        ];
        rows.extend(self.images_per_second.map(|speed| ("training speed", format!("{speed:.0} images/s"))));
        rows.extend([("peak memory", memory), ("verdict", self.verdict_reason.clone())]);
        rows.extend(self.remedy.clone().map(|remedy| ("advice", remedy)));
        rows.push(("run", self.run.shown()));
        key_value_table(&rows)
    }
}
