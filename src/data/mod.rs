//! Images and labels: where they are listed, how they are split, decoded, transformed and fed to training.

use std::path::PathBuf;

/// The part of the data a sample belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Seen by the optimiser.
    Train,
    /// Chooses the best epoch.
    Val,
    /// Scored once, at the end.
    Test,
}

/// One labelled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The file to open.
    pub path: PathBuf,
    /// The path relative to the root or manifest, with `/` between parts: its name in every report.
    pub name: String,
    /// Index into [`Dataset::classes`].
    pub label: usize,
    /// Images of one group (part, patient, roll) never part over two splits.
    pub group: Option<String>,
    /// Its split.
    pub split: Split,
}

/// All samples, sorted by name, and the classes, sorted too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// Every sample of every split.
    pub samples: Vec<Sample>,
}
