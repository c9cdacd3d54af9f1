//! The result of `zeroshot`.

use super::{served, share, share_within};
use crate::cache::CacheUse;
use crate::metrics::Inspection;
use crate::report::{key_value_table, template_table};
use crate::system::shown::{Shown, counted};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What `zeroshot --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZeroshotResult {
    /// The run directory.
    pub run: PathBuf,
    /// `zeroshot`
    pub strategy: String,
    /// The prompts of each class, in the order of the classes.
    pub prompts: Map<String, Value>,
    /// Trainable values: none.
    pub trainable_parameters: usize,
    /// All values.
    pub total_parameters: usize,
    /// On the validation images, if there are any.
    pub val_accuracy: Option<f64>,
    /// On the test images, if there are any.
    pub test_accuracy: Option<f64>,
    /// Its 95 % interval.
    pub test_accuracy_ci95: Option<[f64; 2]>,
    /// The share of the largest class.
    pub majority_baseline: Option<f64>,
    /// Fitted on validation images.
    pub temperature: Option<f64>,
    /// Wall time.
    pub seconds: f64,
    /// Largest resident memory.
    pub peak_memory_bytes: Option<u64>,
    /// How often the backbone had to run.
    pub cache: Option<CacheUse>,
    /// When a good class is named.
    pub inspection: Option<Inspection>,
    /// Each template alone, with `--templates`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateScore>,
}

/// The accuracy of one template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateScore {
    /// With a gap for the class's name.
    pub template: String,
    /// On the validation images, if there are any.
    pub val_accuracy: Option<f64>,
    /// On the test images, if there are any.
    pub test_accuracy: Option<f64>,
}

impl ZeroshotResult {
    pub(super) fn table(&self) -> String {
        let prompts: usize = self.prompts.values().map(|prompts| prompts.as_array().map_or(0, Vec::len)).sum();
        let calibrated = match self.temperature {
            Some(temperature) => format!("at temperature {temperature:.2}, fitted on validation images"),
            None => "not calibrated: no validation images".to_owned(),
        };
        let summary = key_value_table(&[
            ("prompts", format!("{prompts} for {}", counted(self.prompts.len(), "class"))),
            ("validation accuracy", share(self.val_accuracy)),
            ("test accuracy", share_within(self.test_accuracy, self.test_accuracy_ci95)),
            ("always the largest class", share(self.majority_baseline)),
            ("probabilities", calibrated),
            ("features", served(self.cache.unwrap_or_default())),
            ("time", format!("{:.1} s", self.seconds)),
            ("run", self.run.shown()),
        ]);
        if self.templates.is_empty() {
            return summary;
        }
        let row = |row: &'_ TemplateScore| (row.template.clone(), row.val_accuracy, row.test_accuracy);
        let mut rows: Vec<_> = self.templates.iter().map(row).collect();
        rows.push(("all together".to_owned(), self.val_accuracy, self.test_accuracy));
        let rows: Vec<_> = rows.iter().map(|(template, val, test)| (template.as_str(), *val, *test)).collect();
        format!("{}\n\n{summary}", template_table(&rows))
    }
}
