//! The result of a run: printed with `--json` at its end and written into its `run.json`. The table for people shows the
//! same numbers.

mod finetune;
mod lr_finder;
mod patchcore;
mod probe;
mod zeroshot;

pub use finetune::{FinetuneResult, WorstClass};
pub use lr_finder::LrFinderResult;
pub use patchcore::PatchcoreResult;
pub use probe::{PathPoint, PoolScore, ProbeResult};
pub use zeroshot::{TemplateScore, ZeroshotResult};

use super::percent;
use crate::cache::CacheUse;
use serde::{Deserialize, Serialize};

/// The result of the command that made the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RunResult {
    /// The result of `finetune`.
    Finetune(Box<FinetuneResult>),
    /// The result of `probe`.
    Probe(Box<ProbeResult>),
    /// The result of `probe` with patchcore.
    Patchcore(Box<PatchcoreResult>),
    /// The result of `zeroshot`.
    Zeroshot(Box<ZeroshotResult>),
    /// The result of `finetune --find-lr`.
    LrFinder(LrFinderResult),
}

impl RunResult {
    /// The accuracy on the test images, if there are any.
    pub fn test_accuracy(&self) -> Option<f64> {
        match self {
            Self::Finetune(result) => result.test_accuracy,
            Self::Probe(result) => result.test_accuracy,
            Self::Patchcore(result) => result.test_accuracy,
            Self::Zeroshot(result) => result.test_accuracy,
            Self::LrFinder(_) => None,
        }
    }

    /// The accuracy on the validation images, if there are any.
    pub fn val_accuracy(&self) -> Option<f64> {
        match self {
            Self::Finetune(result) => result.val_accuracy,
            Self::Probe(result) => Some(result.val_accuracy),
            Self::Patchcore(result) => result.val_accuracy,
            Self::Zeroshot(result) => result.val_accuracy,
            Self::LrFinder(_) => None,
        }
    }

    /// The same for people.
    pub fn table(&self) -> String {
        match self {
            Self::Finetune(result) => result.table(),
            Self::Probe(result) => result.table(),
            Self::Patchcore(result) => result.table(),
            Self::Zeroshot(result) => result.table(),
            Self::LrFinder(result) => result.table(),
        }
    }
}

/// An accuracy in per cent.
fn share(accuracy: Option<f64>) -> String {
    accuracy.map_or("no such images".into(), percent)
}

/// An accuracy in per cent, with its 95 % interval.
fn share_within(accuracy: Option<f64>, interval: Option<[f64; 2]>) -> String {
    let interval = interval.map(|[low, high]| format!(" (95 %: {} to {})", percent(low), percent(high)));
    format!("{}{}", share(accuracy), interval.unwrap_or_default())
}

/// How the cache served, in words.
fn served(cache: CacheUse) -> String {
    format!("{} from the cache, {} computed", cache.hits, cache.misses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A result reads back as the command that wrote it, numbers and all.
    fn assert_reads_back(value: &Value, expected: fn(&RunResult) -> bool) {
        let result: RunResult = serde_json::from_value(value.clone()).unwrap();
        assert!(expected(&result), "{result:?}");
        assert_eq!(&serde_json::to_value(&result).unwrap(), value);
    }

    #[test]
    fn each_command_is_told_from_its_result() {
        let cache = json!({"hits": 1, "misses": 2, "seconds": 0.5});
        let finetune = json!({
            "run": "runs/a", "strategy": "full", "trainable_parameters": 1, "total_parameters": 2, "epochs": 3, "metric": "accuracy",
            "best_epoch": 2, "val_accuracy": 0.1, "val_balanced_accuracy": 0.2, "test_accuracy": null,
            "test_accuracy_ci95": null, "test_balanced_accuracy": null, "baseline": 0.3,
            "worst_class": {"class": "a", "recall": 0.0, "support": 7}, "seconds": 1.5, "images_per_second": null,
            "peak_memory_bytes": 7, "expected_memory_bytes": null, "cache": null, "soup": null, "wise_ft": null,
            "inspection": null, "verdict": "ok", "verdict_reason": "no sign", "remedy": null,
        });
        assert_reads_back(&finetune, |result| matches!(result, RunResult::Finetune(_)));
        let point = json!({"setting": 0.3, "train_accuracy": 1.0, "val_accuracy": 0.7, "val_score": 0.6, "val_loss": 0.9,
                           "objective": null,
                           "iterations": 4, "converged": true});
        let probe = json!({
            "run": "runs/a", "strategy": "probe", "method": "svm", "features": "cls", "blocks": 1, "chosen": 0.3,
            "at_edge": false, "metric": "balanced_accuracy", "alpha": null, "chosen_on": "validation images", "fitted_on": ["train"], "objective": 0.25,
            "trainable_parameters": 1, "total_parameters": 2, "train_accuracy": 1.0, "val_accuracy": 0.7,
            "test_accuracy": 0.1, "test_accuracy_ci95": [0.05, 0.2], "seconds": 1.5, "peak_memory_bytes": null,
            "cache": cache, "path": [point], "target": null, "advice": "none", "inspection": null,
            "pool": "backbone", "tile_pool": null, "pools": [],
        });
        assert_reads_back(&probe, |result| {
            matches!(result, RunResult::Probe(_)) && result.test_accuracy() == Some(0.1)
        });
        let zeroshot = json!({
            "run": "runs/a", "strategy": "zeroshot", "prompts": {"b": ["a b"], "a": []}, "trainable_parameters": 0,
            "total_parameters": 2, "val_accuracy": 0.1, "test_accuracy": 0.2, "test_accuracy_ci95": null,
            "majority_baseline": 0.5, "temperature": null, "seconds": 1.5, "peak_memory_bytes": 7, "cache": cache,
            "inspection": null,
        });
        assert_reads_back(&zeroshot, |result| matches!(result, RunResult::Zeroshot(_)));
        let lr = json!({"run": "runs/a-lr", "steps": 12, "lr": 1e-4, "head_lr": null, "current_lr": 5e-4,
                        "current_head_lr": 1e-3, "picture": "lr-finder.png"});
        assert_reads_back(&lr, |result| matches!(result, RunResult::LrFinder(_)));
    }
}
