//! The result of the learning-rate range test.

use crate::report::key_value_table;
use crate::system::shown::Shown;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `finetune --find-lr --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LrFinderResult {
    /// The run directory.
    pub run: PathBuf,
    /// Steps taken until the loss broke away.
    pub steps: usize,
    /// The suggested rate; none when no rate lowered the loss.
    pub lr: Option<f64>,
    /// The suggested rate of the head.
    pub head_lr: Option<f64>,
    /// `train.lr` as it is.
    pub current_lr: f64,
    /// `train.head_lr` as it is.
    pub current_head_lr: f64,
    /// Loss against rate.
    pub picture: PathBuf,
}

impl LrFinderResult {
    pub(super) fn table(&self) -> String {
        let set = |name: &str, rate: Option<f64>, now: f64| match rate {
            Some(rate) => format!("train.{name} = {rate:.1e} (now {now:.1e})"),
            None => format!("no rate lowered the loss (now {now:.1e})"),
        };
        key_value_table(&[
            ("suggestion", set("lr", self.lr, self.current_lr)),
            ("for the head", set("head_lr", self.head_lr, self.current_head_lr)),
            ("steps", self.steps.to_string()),
            ("picture", self.picture.shown()),
        ])
    }
}
