//! Problems of pretrained weights and checkpoints.

use crate::system::shown::{Shown, printable};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The tensors do not match the architecture; every difference is listed.
    #[error("{} does not fit the {family} architecture:{}", path.shown(), lines(problems))]
    Mismatch {
        /// The weights file.
        path: PathBuf,
        /// The family that was recognised.
        family: String,
        /// Missing, unexpected and wrongly shaped tensors, one line each.
        problems: Vec<String>,
    },
    /// The file is damaged or of an unknown kind.
    #[error("{}: {}", path.shown(), printable(reason))]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What would be valid.
        hint: Option<String>,
    },
}

impl WeightsError {
    /// A damaged or unknown file.
    pub fn invalid(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into(), hint: None }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mismatch { .. } => Some("check that the weights and config.json come from the same model".into()),
            Self::Invalid { hint, .. } => hint.clone(),
        }
    }
}

/// One line each, the first of each kind ("missing", "unexpected", …): they tell what went wrong.
fn lines(problems: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = String::new();
    let kind = |problem: &str| problem.split(':').next().unwrap_or_default().to_owned();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for problem in problems {
        let count = counts.entry(kind(problem)).or_default();
        *count += 1;
        if *count <= SHOWN {
            text.push_str(&format!("\n  {}", printable(problem)));
        }
    }
    for (kind, count) in counts.iter().filter(|(_, count)| **count > SHOWN) {
        text.push_str(&format!("\n  {kind}: {} more", count - SHOWN));
    }
    text
}
