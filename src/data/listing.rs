//! What a folder or a manifest lists, before labels are numbers and splits are drawn.

use super::{Dataset, Entry, Labels, Sample, ScoredSplit, Split, Unread, copies, parts, split};
use crate::error::{DataError, Result};
use crate::system::shown::{Shown, counted, printable, quoted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use unicode_normalization::UnicodeNormalization;

/// The most items that a message lists.
const LISTED: usize = 50;

/// All images of a source.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The folder or manifest, for messages.
    pub source: PathBuf,
    pub entries: Vec<Entry>,
    pub warnings: Vec<String>,
    pub notes: Vec<String>,
    /// The split that is scored, where the source names splits.
    pub part: Option<ScoredSplit>,
    /// Classes that are there but not wanted.
    pub left_out: BTreeSet<String>,
    pub ignored_files: usize,
    pub unread: Unread,
}

impl Listing {
    /// Numbers the classes, draws missing splits and checks that the result can be trained on.
    pub(super) fn into_dataset(mut self, plan: &split::SplitPlan, wanted: Labels<'_>) -> Result<Dataset> {
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        self.warnings.extend(unread_warning(&self.unread));
        let classes = self.classes(wanted)?;
        let labels: Vec<usize> = self
            .entries
            .iter()
            .map(|entry| classes.binary_search(&class_name(&entry.class)).unwrap_or_default())
            .collect();
        if plan.draws(&self.entries) {
            copies::mark(&mut self.entries);
        }
        let split = |split: &Split| self.entries.iter().any(|entry| entry.split == Some(*split));
        let named = Split::ALL.into_iter().filter(split).collect();
        if let Some(fold) = plan.fold {
            if self.entries.iter().any(|entry| entry.split.is_some()) {
                let source = self.source.shown();
                self.warnings
                    .push(format!("data.fold divides all images anew: the splits named in {source} are ignored"));
            }
            split::deal(&mut self.entries, &labels, &classes, plan, fold)?;
        }
        let splits = split::assign(&self.entries, &labels, classes.len(), plan)?;
        let samples = self.entries.into_iter().zip(labels).zip(splits);
        let samples = samples
            .map(|((entry, label), split)| {
                let Entry { path, name, group, mask, .. } = entry;
                Sample { path, name, label, kind: None, group, mask, split }
            })
            .collect();
        let Self { warnings, notes, ignored_files, unread, .. } = self;
        let mut dataset =
            Dataset { classes, sound: None, samples, warnings, notes, named, part: None, ignored_files, unread };
        match wanted {
            Labels::Classes => {
                check_classes(&dataset)?;
                dataset.warnings.extend(small_class_warnings(&dataset, plan));
                Ok(dataset)
            }
            Labels::Parts(good) => Ok(parts::label(dataset, good)?),
        }
    }

    /// Labels all images by known classes, as one split.
    pub(super) fn labelled(mut self, classes: &[String], wanted: Labels<'_>, split: Split) -> Result<Dataset> {
        check_collisions(self.entries.iter().map(|entry| entry.class.as_str()).collect::<BTreeSet<_>>().into_iter())?;
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        self.warnings.extend(unread_warning(&self.unread));
        let (mut samples, mut unknown) = (Vec::new(), BTreeSet::new());
        for Entry { path, name, class, group, mask, .. } in self.entries {
            let (label, kind) = wanted.of(class_name(&class));
            match classes.iter().position(|known| *known == label) {
                Some(label) => samples.push(Sample { path, name, label, kind, group, mask, split }),
                None => drop(unknown.insert(class)),
            }
        }
        if !unknown.is_empty() {
            let (unknown, source): (Vec<String>, _) = (unknown.into_iter().collect(), self.source.shown());
            let message = format!("{source}: the model does not know the class {}", quoted(&unknown));
            return Err(DataError::invalid(message, format!("it knows {}", quoted(classes))).into());
        }
        if samples.is_empty() {
            let message = format!("{} holds no images to score", self.source.shown());
            return Err(DataError::invalid(message, "the run's data.ignore may leave out all of its classes").into());
        }
        let Self { warnings, notes, part, ignored_files, unread, .. } = self;
        let (classes, sound, named) = (classes.to_vec(), wanted.sound(classes), Vec::new());
        Ok(Dataset { classes, sound, samples, warnings, notes, named, part, ignored_files, unread })
    }

    /// Sorted class names, no two alike; at least two where these are told apart.
    fn classes(&self, wanted: Labels<'_>) -> Result<Vec<String>> {
        let written: BTreeSet<&str> = self.entries.iter().map(|entry| entry.class.as_str()).collect();
        check_collisions(written.iter().copied())?;
        let mut classes: Vec<String> = written.into_iter().map(class_name).collect();
        classes.sort();
        if classes.is_empty() {
            let message = format!("{}: no class is left", self.source.shown());
            return Err(DataError::invalid(message, "data.ignore leaves out all of them").into());
        }
        if let (Labels::Classes, [only]) = (wanted, classes.as_slice()) {
            return Err(DataError::invalid(
                format!("{}: there is only one class, {only:?}", self.source.shown()),
                "a classifier needs at least two classes, one folder (or one label of the manifest) each; \
                 `vitadapt probe` with probe.method = \"patchcore\" needs images of sound parts alone",
            )
            .into());
        }
        Ok(classes)
    }
}

/// The class that a folder or label names: without white space around it, in Unicode normalisation form C, so that names
/// that look the same are the same.
pub(super) fn class_name(text: &str) -> String {
    nfc(text.trim())
}

fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// What the user should know of images that are not read.
pub(super) fn unread_warning(unread: &Unread) -> Option<String> {
    (!unread.is_empty()).then(|| {
        format!(
            "images in formats that are not read are left out: {}; convert them to PNG or JPEG",
            by_extension(unread)
        )
    })
}

/// `3 .heic and 1 .gif in "good", 2 .heic in "bad"`
pub(super) fn by_extension(unread: &Unread) -> String {
    let mut by_class: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((class, extension), n) in unread {
        by_class.entry(class).or_default().push(format!("{n} .{extension}"));
    }
    let mut parts: Vec<String> = by_class
        .iter()
        .map(|(class, counts)| format!("{} in \"{}\"", counts.join(" and "), printable(class)))
        .collect();
    let more = parts.len().saturating_sub(LISTED);
    parts.truncate(LISTED);
    if more > 0 {
        parts.push(format!("and in {}", counted(more, "more class")));
    }
    parts.join(", ")
}

/// Refuses class names that a file system or a reader could take for one another.
///
/// White space counts as one space. Upper case first, so that letters with several lower-case forms (ß and ss) fold together.
pub(super) fn check_collisions<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        let spaced: Vec<&str> = name.split_whitespace().collect();
        let key = nfc(&nfc(&spaced.join(" ")).to_uppercase().to_lowercase());
        if let Some(other) = folded.insert(key, name) {
            return Err(DataError::invalid(
                format!("the classes {other:?} and {name:?} differ only in letter case, white space or Unicode form"),
                "rename one of them, or merge them by data.classes if they are the same class",
            )
            .into());
        }
    }
    Ok(())
}

/// Every class needs training images, of parts the sound ones.
pub(super) fn check_classes(dataset: &Dataset) -> Result<(), DataError> {
    let counts = dataset.class_counts(Split::Train);
    let needed = |label: usize| dataset.sound.is_none_or(|sound| sound == label);
    let missing: Vec<&String> = dataset
        .classes
        .iter()
        .zip(counts)
        .enumerate()
        .filter(|&(label, (_, n))| n == 0 && needed(label))
        .map(|(_, (class, _))| class)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DataError::invalid(
        format!("no training image of {}", quoted(&missing)),
        "every class needs images in train; move some there, or remove the class. Of a tree with sound parts alone in train/ \
         `vitadapt init` makes a list that is dealt anew, and `vitadapt probe` with probe.method = \"patchcore\" needs no others",
    ))
}

fn small_class_warnings(dataset: &Dataset, plan: &split::SplitPlan) -> Vec<String> {
    let train = dataset.class_counts(Split::Train);
    let (val, test) = (dataset.class_counts(Split::Val), dataset.class_counts(Split::Test));
    let alone = |label: usize| train[label] + val[label] + test[label] == 1;
    let those = |chosen: &dyn Fn(usize) -> bool| -> Vec<&String> {
        dataset.classes.iter().enumerate().filter(|&(label, _)| chosen(label)).map(|(_, class)| class).collect()
    };
    let mut warnings = Vec::new();
    let single = those(&alone);
    if !single.is_empty() {
        let classes = having(&single);
        warnings.push(format!("{classes} one image, kept for training: no validation or test image is left"));
    }
    for (split, counts, fraction) in [(Split::Val, &val, plan.val), (Split::Test, &test, plan.test)] {
        let wanted = fraction > 0.0 || counts.iter().any(|&n| n > 0);
        let without = those(&|label| wanted && !alone(label) && counts[label] == 0);
        if !without.is_empty() {
            warnings.push(format!("{} no {split} image", having(&without)));
        }
    }
    warnings
}

/// `class "a" has`, or `classes "a" and "b" have`: one message, however many there are.
fn having(classes: &[&String]) -> String {
    const SHOWN: usize = 8;
    match classes {
        [only] => format!("class {only:?} has"),
        all if all.len() <= SHOWN => format!("classes {} have", quoted(all)),
        all => format!("{} classes ({}, …) have", all.len(), quoted(&all[..3])),
    }
}

/// One indented line each, the first [`LISTED`] of them.
pub(super) fn indented(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(LISTED);
    lines.truncate(LISTED);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    format!("\n  {}", lines.join("\n  "))
}
