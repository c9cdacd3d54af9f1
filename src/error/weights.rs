//! Problems of pretrained weights and checkpoints.

use std::path::PathBuf;

/// Weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The tensors do not match the architecture; every difference is listed.
    #[error("{} does not fit the {family} architecture:{}", path.display(), lines(problems))]
    Mismatch {
        /// The weights file.
        path: PathBuf,
        /// The family that was recognised.
        family: String,
        /// Missing, unexpected and wrongly shaped tensors, one line each.
        problems: Vec<String>,
    },
    /// The file is damaged or of an unknown kind.
    #[error("{}: {reason}", path.display())]
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

fn lines(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
