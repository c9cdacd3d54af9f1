//! Images and labels: how they are listed, split, decoded, transformed and loaded in batches.
//!
//! [`Dataset::open`] lists and splits, [`audit::audit`] looks at every file once, [`transform`] turns an image into
//! pixels for the backbone, [`loader`] delivers them in batches.

pub mod audit;
pub mod class_weights;
mod classes;
mod columns;
mod copies;
pub mod decode;
mod decode_memory;
mod delivery;
mod dicom;
mod findings;
mod folder;
pub mod folds;
mod image_error;
pub mod inputs;
pub mod kinds;
mod listing;
pub mod loader;
mod manifest;
pub mod masks;
mod parts;
mod patients;
mod pixels;
mod rows;
pub mod sampler;
mod scored_split;
pub mod similar;
mod split;
mod split_folders;
mod splits_csv;
mod storage;
pub mod transform;
mod tree;
pub mod upload;

pub use delivery::{Destination, ResizedBytes};
pub use manifest::tell_columns;
pub use parts::Labels;
pub use pixels::PixelSum;
pub use scored_split::ScoredSplit;
pub use split_folders::beside_splits;
pub use splits_csv::{SplitRow, read_splits_csv, write_splits_csv};

use crate::config::{DataSettings, DataSource};
use crate::error::Result;
use crate::linalg::tally;
use std::path::{Path, PathBuf};

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

impl Split {
    /// All splits, in the order of their use.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The name in files and folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }

    /// The split of a folder or manifest value in the usual spellings, any case: `train`, `Training`, `training_set`,
    /// `seg_train`, `valid`, `Test-Images`.
    pub fn parse(text: &str) -> Option<Self> {
        /// Words that say nothing about which split it is.
        const BESIDE: [&str; 8] = ["set", "data", "dataset", "images", "imgs", "seg", "split", "samples"];
        let text = text.trim().to_ascii_lowercase();
        let mut words = text.split(['_', '-', ' ', '.']).filter(|word| !BESIDE.contains(word));
        let (Some(word), None) = (words.next(), words.next()) else { return None };
        match word {
            "train" | "training" | "trainset" => Some(Self::Train),
            "val" | "valid" | "validation" | "valset" => Some(Self::Val),
            "test" | "testing" | "testset" => Some(Self::Test),
            _ => None,
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Number of image files that are not read, by class and extension in lower case.
pub type Unread = std::collections::BTreeMap<(String, String), usize>;

/// One image as its source lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    /// Relative to the root, `/` between parts.
    name: String,
    /// The class as written, not normalised.
    class: String,
    group: Option<String>,
    mask: Option<MaskFile>,
    /// None when it is still to be drawn.
    split: Option<Split>,
    /// SHA-256 of its bytes where another file has the same and splits are drawn.
    copied: Option<[u8; 32]>,
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
    /// What its source calls it, where the label says only whether it is sound; none where the label is that.
    pub kind: Option<String>,
    /// Images of one group (part, patient, roll) are always in the same split.
    pub group: Option<String>,
    /// The mask of its flaws, where a manifest names one.
    pub mask: Option<MaskFile>,
    /// Its split.
    pub split: Split,
}

/// A file that a manifest names in its column `mask`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskFile {
    /// The file to open.
    pub path: PathBuf,
    /// As [`Sample::name`].
    pub name: String,
}

/// All samples, sorted by name, and the classes, sorted too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dataset {
    /// Class names in Unicode normalisation form C; a label is an index into them.
    pub classes: Vec<String>,
    /// The label of sound parts, where labels say only whether a part is sound; no other class needs training images.
    pub sound: Option<usize>,
    /// Every sample of every split.
    pub samples: Vec<Sample>,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
    /// What was done because the settings say so: classes and images that are left out.
    pub notes: Vec<String>,
    /// The splits that the source names; the others are drawn.
    pub named: Vec<Split>,
    /// The split that is scored, of a source that names splits.
    pub part: Option<ScoredSplit>,
    /// Files in class folders whose extension is not that of an image, hidden files not counted.
    pub ignored_files: usize,
    /// Those among them that are images in a format that is not read, by class and extension.
    pub unread: Unread,
}

impl Dataset {
    /// Lists the images of the settings' source and draws the splits it does not name.
    ///
    /// # Errors
    /// A data error (exit code 3) that names the file or folder: nothing there, unreadable, empty or colliding
    /// classes, fewer than two classes, a class without training images, a manifest with bad rows, classes to merge or
    /// to leave out that are not there.
    pub fn open(settings: &DataSettings) -> Result<Self> {
        Self::open_as(settings, Labels::Classes)
    }

    /// The same with other labels than classes.
    ///
    /// # Errors
    /// As [`Dataset::open`], of what these labels ask for.
    pub fn open_as(settings: &DataSettings, labels: Labels<'_>) -> Result<Self> {
        let wanted = classes::ClassChoice::new(settings);
        let mut listing = match &settings.source {
            DataSource::Root(root) => folder::list(root, &wanted)?,
            DataSource::Manifest(file) => manifest::list(file, settings)?,
        };
        wanted.check(&listing)?;
        wanted.apply(&mut listing);
        if let Some(most) = settings.max_per_class {
            classes::cap(&mut listing, most, settings.split_seed);
        }
        patients::group(&mut listing, settings.group_by);
        listing.into_dataset(&split::SplitPlan::new(settings), labels)
    }

    /// Reads a file of [`write_splits_csv`] again: the same samples in the same splits. Its paths are relative to the folder that
    /// the settings' source is. Where images may be `gone`, they are not looked for.
    ///
    /// # Errors
    /// As [`Dataset::open`] for a manifest.
    pub fn from_splits_csv(file: &Path, settings: &DataSettings, labels: Labels<'_>, gone: bool) -> Result<Self> {
        manifest::list_splits(file, settings.folder(), settings.allow_outside, gone)?
            .into_dataset(&split::SplitPlan::NOTHING_TO_DRAW, labels)
    }

    /// Lists other images with the classes of a trained model, all of them as `split`: a folder of class folders, not
    /// necessarily of every class, or a manifest. Where it names splits, those of `part` are listed (none: test). The settings
    /// say how classes are merged and left out, where they are there, what columns are called, and `allow_outside`; nothing
    /// else in them is about these images.
    ///
    /// # Errors
    /// A data error that names a class the model does not know, or a source without images; those of [`ScoredSplit`].
    pub fn of_classes(
        source: &Path,
        classes: &[String],
        labels: Labels<'_>,
        settings: &DataSettings,
        (part, split): (Option<Split>, Split),
    ) -> Result<Self> {
        let wanted = classes::ClassChoice::new(settings);
        let mut listing = if source.is_file() {
            manifest::list_scored(source, settings, part)?
        } else {
            folder::list_scored(source, &wanted, part)?
        };
        wanted.apply(&mut listing);
        patients::group(&mut listing, settings.group_by);
        listing.labelled(classes, labels, split)
    }

    /// Positions of the samples of a split, ascending.
    pub fn indices(&self, split: Split) -> Vec<usize> {
        (0..self.samples.len()).filter(|&index| self.samples[index].split == split).collect()
    }

    /// Number of samples of each class in a split.
    pub fn class_counts(&self, split: Split) -> Vec<usize> {
        let labels = self.samples.iter().filter(|sample| sample.split == split).map(|sample| sample.label);
        tally(labels, self.classes.len())
    }
}

#[cfg(test)]
pub(crate) mod testing;
