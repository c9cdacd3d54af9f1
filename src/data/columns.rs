//! Which column of a manifest is which.

use super::decode::EXTENSIONS;
use super::rows::short;
use super::tree::extension;
use crate::config::ColumnNames;
use crate::error::DataError;
use crate::system::shown::Shown;
use std::collections::BTreeSet;
use std::path::Path;

/// What columns are called in other people's tables, the likeliest first, in lower case with `_` between words.
const PATH: [&str; 10] =
    ["path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name"];
const LABEL: [&str; 9] =
    ["label", "class", "class_name", "category", "target", "defect", "diagnosis", "label_name", "y"];
const SPLIT: [&str; 4] = ["split", "subset", "set", "partition"];
const GROUP: [&str; 10] =
    ["group", "patient", "patient_id", "part", "part_id", "lot", "roll", "subject", "subject_id", "serial"];
const MASK: [&str; 5] = ["mask", "mask_path", "mask_file", "ground_truth", "segmentation"];

impl ColumnNames {
    /// What the columns of a table are called that nobody has described: told by their names.
    pub fn told(header: &[String]) -> Self {
        let normal = |name: &String| name.trim().to_lowercase().replace([' ', '-'], "_");
        let find = |words: &[&str]| {
            let theirs = words.iter().find_map(|word| header.iter().find(|name| normal(name) == *word))?;
            (theirs.trim().to_lowercase() != words[0]).then(|| theirs.trim().to_owned())
        };
        Self { path: find(&PATH), label: find(&LABEL), split: find(&SPLIT), group: find(&GROUP), mask: find(&MASK) }
    }

    /// The same of a whole table: where no column is called as files or labels are, files are told by their endings, and
    /// labels as the one column that is filled in and repeats itself without being the same throughout. `label` says
    /// which has the labels.
    ///
    /// # Errors
    /// The columns that labels may be in, when that is not one.
    pub(super) fn told_by_rows(
        header: &[String],
        rows: &[csv::StringRecord],
        label: Option<&str>,
    ) -> Result<Self, Vec<String>> {
        let mut told = Self::told(header);
        let has = |name: &str| header.iter().any(|theirs| theirs.trim().eq_ignore_ascii_case(name));
        let values = |at: usize| rows.iter().map(move |row| row.get(at).unwrap_or_default().trim());
        let files = |at: &usize| 10 * values(*at).filter(|value| is_image(value)).count() > 9 * rows.len();
        if told.path.is_none() && !has("path") {
            told.path = (0..header.len()).find(files).map(|at| header[at].trim().to_owned());
        }
        if let Some(label) = label {
            told.label = Some(label.to_owned());
        } else if told.label.is_none() && !has("label") {
            let others = [(&told.path, "path"), (&told.split, "split"), (&told.group, "group"), (&told.mask, "mask")];
            let free = |name: &str| {
                others.iter().all(|(other, usual)| !other.as_deref().unwrap_or(usual).eq_ignore_ascii_case(name))
            };
            let repeats = |at: usize| {
                let kinds: BTreeSet<&str> = values(at).collect();
                kinds.len() > 1 && 2 * kinds.len() <= rows.len() && !kinds.contains("") && !values(at).any(is_image)
            };
            let named = (0..header.len()).filter(|&at| !header[at].trim().is_empty());
            let candidates = named.filter(|&at| repeats(at)).map(|at| header[at].trim().to_owned());
            let candidates: Vec<String> = candidates.filter(|name| free(name)).collect();
            match candidates.as_slice() {
                [only] => told.label = Some(only.clone()),
                _ => return Err(candidates),
            }
        }
        Ok(told)
    }

    /// These names where the table has such columns, and else what [`Self::told`] makes of it, but for the split.
    #[must_use]
    pub(super) fn among(&self, header: &[String]) -> Self {
        let has = |name: &&String| header.iter().any(|theirs| theirs.trim().to_lowercase() == name.to_lowercase());
        let told = Self::told(header);
        let either = |ours: &Option<String>, theirs| ours.as_ref().filter(has).cloned().or(theirs);
        Self {
            path: either(&self.path, told.path),
            label: either(&self.label, told.label),
            // Not told by its name: a column `set` may mean anything.
            split: self.split.as_ref().filter(has).cloned(),
            group: either(&self.group, told.group),
            mask: either(&self.mask, told.mask),
        }
    }
}

/// Whether a text ends as the names of images do.
pub(super) fn is_image(text: &str) -> bool {
    EXTENSIONS.contains(&extension(Path::new(text.trim())).as_str())
}

/// Positions of the columns.
pub(super) struct ColumnPositions {
    pub path: usize,
    pub label: usize,
    pub split: Option<usize>,
    pub group: Option<usize>,
    pub mask: Option<usize>,
    /// How many there are.
    pub count: usize,
}

/// The first line of a manifest.
pub(super) struct ManifestHeader<'a> {
    /// The manifest, for messages.
    file: &'a Path,
    /// In lower case.
    names: Vec<String>,
}

impl<'a> ManifestHeader<'a> {
    pub(super) fn new(file: &'a Path, header: &csv::StringRecord) -> Self {
        Self { file, names: header.iter().map(|name| name.trim().to_lowercase()).collect() }
    }

    /// Where the columns are that `names` speaks of.
    ///
    /// # Errors
    /// A data error for one that is missing, there twice, or misspelt.
    pub(super) fn columns(&self, names: &ColumnNames) -> Result<ColumnPositions, DataError> {
        // A column that the settings name has to be there; the usual ones for split and group need not.
        let optional = |given: &Option<String>, usual: &str| {
            given.as_ref().map_or_else(|| self.find(usual), |given| self.required(given).map(Some))
        };
        let ColumnNames { path: _, label, split, group, mask } = names;
        let path = self.path(names)?;
        let label = self.required(label.as_deref().unwrap_or("label"))?;
        let (split, group, mask) = (optional(split, "split")?, optional(group, "group")?, optional(mask, "mask")?);
        for (known, found) in [("split", split), ("group", group)] {
            if let Some(meant) = self.names.iter().find(|name| found.is_none() && is_misspelling(name, known)) {
                return Err(self.invalid(
                    &format!("unknown column {meant:?}: did you mean {known}?"),
                    "rename it; if it means something else, give it a name less like one that has a meaning",
                ));
            }
        }
        Ok(ColumnPositions { path, label, split, group, mask, count: self.names.len() })
    }

    /// Where the column of the files is.
    ///
    /// # Errors
    /// A data error when it is missing or there twice.
    pub(super) fn path(&self, names: &ColumnNames) -> Result<usize, DataError> {
        self.required(names.path.as_deref().unwrap_or("path"))
    }

    fn find(&self, wanted: &str) -> Result<Option<usize>, DataError> {
        let same = |name: &String| *name == wanted.to_lowercase();
        let mut found = self.names.iter().enumerate().filter(|(_, name)| same(name)).map(|(at, _)| at);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(self.invalid(&format!("the column {wanted} occurs twice"), "keep one of them")),
            (first, None) => Ok(first),
        }
    }

    fn required(&self, wanted: &str) -> Result<usize, DataError> {
        self.find(wanted)?.ok_or_else(|| {
            let message = format!("its first line has no column {wanted:?}, only {}", short(&self.names.join(", ")));
            self.invalid(
                &message,
                "the first line names the columns, separated by commas: path,label[,split][,group][,mask]; data.columns says \
                 what they are called instead, and `vitadapt init` finds that out",
            )
        })
    }

    fn invalid(&self, message: &str, hint: &str) -> DataError {
        DataError::invalid(format!("{}: {message}", self.file.shown()), hint)
    }
}

/// Whether a column is likely meant to be the known one: `groups`, `gruop`, `group_id`.
fn is_misspelling(name: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(name, known) <= 1 || name.split(['_', '-', ' ']).any(|word| word == known)
}
