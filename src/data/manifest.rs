//! A CSV file that lists images: `path,label[,split][,group]`, in any order of columns.

use super::listing::{Listing, indented};
use super::{Dataset, Entry, Split};
use crate::error::{DataError, Error, Result};
use std::collections::btree_map::{BTreeMap, Entry as MapEntry};
use std::path::{Component, Path, PathBuf};

/// All rows of a manifest; paths are relative to its folder and must stay inside it, links included.
pub(super) fn list(file: &Path) -> Result<Listing> {
    let root = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ManifestReader { file, root, links_may_leave: false }.read()
}

/// All rows of a run's `splits.csv`, whose paths were checked when it was written: below a data root, links may lead
/// anywhere.
pub(super) fn list_splits(file: &Path, root: &Path) -> Result<Listing> {
    ManifestReader { file, root, links_may_leave: true }.read()
}

/// Writes which sample is in which split, one row per sample, sorted by name: `path,label,split,group`.
///
/// The file is a manifest: [`Dataset::from_splits_csv`] reads it again.
///
/// # Errors
/// When the file cannot be written.
pub fn write_splits_csv(path: &Path, dataset: &Dataset) -> Result<()> {
    let failed = Error::csv(path);
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(["path", "label", "split", "group"]).map_err(failed)?;
    for sample in &dataset.samples {
        let label = dataset.classes.get(sample.label).map_or("", String::as_str);
        let group = sample.group.as_deref().unwrap_or_default();
        writer.write_record([&sample.name, label, sample.split.name(), group]).map_err(failed)?;
    }
    writer.flush().map_err(Error::io("write", path))
}

/// The groups of samples by name, from a file of [`write_splits_csv`]; the images themselves are not looked for.
///
/// # Errors
/// A data error when the file cannot be read.
pub fn groups_in_splits_csv(path: &Path) -> Result<BTreeMap<String, String>> {
    let failed = |error: csv::Error| {
        DataError::invalid(format!("cannot read {}: {error}", path.display()), "every run directory has one")
    };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let mut groups = BTreeMap::new();
    for row in reader.deserialize() {
        let SplitsRow { path, group } = row.map_err(failed)?;
        if !group.is_empty() {
            groups.insert(path, group);
        }
    }
    Ok(groups)
}

/// What [`groups_in_splits_csv`] needs of a row.
#[derive(serde::Deserialize)]
struct SplitsRow {
    path: String,
    group: String,
}

struct ManifestReader<'a> {
    file: &'a Path,
    /// What paths are relative to.
    root: &'a Path,
    links_may_leave: bool,
}

/// Positions of the columns.
struct Columns {
    path: usize,
    label: usize,
    split: Option<usize>,
    group: Option<usize>,
}

impl ManifestReader<'_> {
    /// Reads every row; all problems are reported together, with their lines.
    fn read(&self) -> Result<Listing> {
        let bytes = std::fs::read(self.file).map_err(|error| {
            let message = format!("cannot read the manifest {}: {error}", self.file.display());
            DataError::invalid(message, "data.manifest names a CSV file with the columns path,label[,split][,group]")
        })?;
        let real_root = self.root.canonicalize().map_err(|error| {
            DataError::invalid(format!("cannot read {}: {error}", self.root.display()), "check that the folder exists")
        })?;
        let mut rows = csv::ReaderBuilder::new().from_reader(bytes.as_slice());
        let columns = self.columns(&rows.headers().map_err(|error| self.malformed(&error))?.clone())?;
        let mut entries = Vec::new();
        let mut problems = Vec::new();
        let mut seen: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for row in rows.records() {
            let row = row.map_err(|error| self.malformed(&error))?;
            let line = row.position().map_or(0, csv::Position::line);
            match self.entry(&row, &columns, &real_root) {
                Ok(entry) => match seen.entry(entry.name.clone()) {
                    MapEntry::Occupied(first) => problems.push(repeated(line, &entry, first.get())),
                    MapEntry::Vacant(place) => {
                        place.insert((line, entry.class.clone()));
                        entries.push(entry);
                    }
                },
                Err(problem) => problems.push(format!("line {line}: {problem}")),
            }
        }
        if !problems.is_empty() {
            return Err(self.rejected(problems).into());
        }
        if entries.is_empty() {
            return Err(self.invalid("it lists no images", "add one row per image below the header").into());
        }
        Ok(Listing { source: self.file.to_path_buf(), entries, ..Listing::default() })
    }

    fn columns(&self, header: &csv::StringRecord) -> Result<Columns> {
        let names: Vec<String> = header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        let find = |wanted: &str| {
            let mut found = names.iter().enumerate().filter(|(_, name)| *name == wanted).map(|(at, _)| at);
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(self.invalid(&format!("the column {wanted} occurs twice"), "keep one of them")),
                (first, None) => Ok(first),
            }
        };
        let required = |wanted: &str| {
            find(wanted)?.ok_or_else(|| {
                let message = format!("its first line has no column {wanted:?}, only {}", names.join(", "));
                self.invalid(
                    &message,
                    "the first line names the columns, separated by commas: path,label[,split][,group]",
                )
            })
        };
        Ok(Columns { path: required("path")?, label: required("label")?, split: find("split")?, group: find("group")? })
    }

    /// One row, or what is wrong with it.
    fn entry(&self, row: &csv::StringRecord, columns: &Columns, real_root: &Path) -> Result<Entry, String> {
        let field = |column: usize| row.get(column).unwrap_or_default();
        let optional = |column: Option<usize>| column.map(field).filter(|value| !value.trim().is_empty());
        let written = field(columns.path);
        let name = inside(written)?;
        let class = field(columns.label).to_owned();
        if class.trim().is_empty() {
            return Err(format!("{written:?} has no label"));
        }
        let split = optional(columns.split).map(|value| {
            Split::parse(value)
                .ok_or_else(|| format!("the split {value:?} is none of train, val, test (or empty: drawn)"))
        });
        let path = self.root.join(&name);
        self.check_file(written, &path, real_root)?;
        Ok(Entry { path, name, class, group: optional(columns.group).map(str::to_owned), split: split.transpose()? })
    }

    fn check_file(&self, written: &str, path: &Path, real_root: &Path) -> Result<(), String> {
        let real = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("{written:?} does not exist in {}", self.root.display()),
            _ => format!("{written:?} cannot be read: {error}"),
        })?;
        if !self.links_may_leave && !real.starts_with(real_root) {
            return Err(format!("{written:?} leads outside the manifest's folder, to {}", real.display()));
        }
        if !real.is_file() {
            return Err(format!("{written:?} is not a regular file"));
        }
        Ok(())
    }

    fn invalid(&self, message: &str, hint: &str) -> DataError {
        DataError::invalid(format!("{}: {message}", self.file.display()), hint)
    }

    fn malformed(&self, error: &csv::Error) -> Error {
        self.invalid(&error.to_string(), "save it as comma-separated UTF-8 with the same number of columns in each row")
            .into()
    }

    fn rejected(&self, problems: Vec<String>) -> DataError {
        let plural = if problems.len() == 1 { "row" } else { "rows" };
        let message = format!("{} bad {plural} in the manifest:{}", problems.len(), indented(problems));
        self.invalid(&message, "paths are relative to the manifest's folder and stay inside it; each is listed once")
    }
}

fn repeated(line: u64, entry: &Entry, (first, class): &(u64, String)) -> String {
    if entry.class == *class {
        return format!("line {line}: {:?} is listed before, in line {first}", entry.name);
    }
    format!("line {line}: {:?} is labelled {:?}, but {class:?} in line {first}", entry.name, entry.class)
}

/// The path in one spelling: relative, no `.` parts, `/` between parts.
fn inside(written: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in PathBuf::from(written).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir => return Err(format!("{written:?} has a `..` part")),
            Component::RootDir | Component::Prefix(_) => return Err(format!("{written:?} is an absolute path")),
        }
    }
    if parts.is_empty() { Err("the path is empty".into()) } else { Ok(parts.join("/")) }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
