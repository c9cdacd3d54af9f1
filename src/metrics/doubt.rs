//! Why a score is not an estimate of how a model does on images that it has not seen.

use serde::{Deserialize, Serialize};

/// A reason not to take a score at its word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// What is the matter.
    pub kind: DoubtKind,
    /// With how many of the images.
    pub images: usize,
    /// The same for people.
    pub sentence: String,
}

/// What may be the matter with images that are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtKind {
    /// Their files have changed since the run.
    Changed,
    /// The model was fitted on them.
    TrainedOn,
    /// Its epoch, setting or temperature was chosen on them.
    ChosenOn,
    /// They show the same pixels as images that it was fitted or chosen on, in other files: so they did at the time of the
    /// run, whose own score is in the same doubt.
    Copied,
}
