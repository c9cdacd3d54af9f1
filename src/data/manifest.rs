//! A CSV file that lists images: `path,label[,split][,group]`, in any order of columns.

use super::listing::{Listing, indented};
use super::{Dataset, Entry, Split};
use crate::config::{ColumnNames, DataSettings};
use crate::error::{DataError, Error, Result};
use crate::system::digest::hex;
use crate::system::files::read_regular;
use crate::system::tables::write_csv;
use std::borrow::Cow;
use std::collections::btree_map::{BTreeMap, Entry as MapEntry};
use std::path::{Component, Path};

/// All rows of a manifest. Paths are relative to the settings' folder; unless they may lead outside, they stay inside it,
/// links included.
pub(super) fn list(file: &Path, settings: &DataSettings) -> Result<Listing> {
    let (root, outside) = (settings.folder(), settings.allow_outside);
    ManifestReader { file, root, outside, links_may_leave: outside, names: &settings.columns }.read()
}

/// All rows of a run's `splits.csv`, whose paths were checked when it was written: below a data root, links may lead
/// anywhere.
pub(super) fn list_splits(file: &Path, root: &Path, outside: bool) -> Result<Listing> {
    ManifestReader { file, root, outside, links_may_leave: true, names: &ColumnNames::default() }.read()
}

/// What the columns of a manifest are called.
///
/// # Errors
/// A data error when the file cannot be read.
pub fn manifest_columns(file: &Path) -> Result<Vec<String>> {
    let names = &ColumnNames::default();
    let reader = ManifestReader { file, root: Path::new(""), outside: true, links_may_leave: true, names };
    let text = reader.text()?;
    let mut rows = csv::ReaderBuilder::new().delimiter(delimiter(&text)).from_reader(text.as_bytes());
    let header = rows.headers().map_err(|error| reader.malformed(&error))?;
    Ok(header.iter().map(str::to_owned).collect())
}

/// Writes which sample is in which split, one row per sample, sorted by name: `path,label,split,group,sha256`, where
/// `keys` are the SHA-256 sums of the files in the order of the samples.
///
/// The file is a manifest: [`Dataset::from_splits_csv`] reads it again.
///
/// # Errors
/// When the file cannot be written.
pub fn write_splits_csv(path: &Path, dataset: &Dataset, keys: &[[u8; 32]]) -> Result<()> {
    write_csv(path, |table| {
        table.write_record(["path", "label", "split", "group", "sha256"])?;
        dataset.samples.iter().enumerate().try_for_each(|(index, sample)| {
            let label = dataset.classes.get(sample.label).map_or("", String::as_str);
            let group = sample.group.as_deref().unwrap_or_default();
            let sum = keys.get(index).map(|key| hex(key)).unwrap_or_default();
            table.write_record([&sample.name, label, sample.split.name(), group, &sum])
        })
    })
}

/// A row of a file of [`write_splits_csv`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct SplitRow {
    /// [`Sample::name`](super::Sample::name)
    pub path: String,
    /// Its split.
    pub split: Split,
    /// Its group; empty without one.
    pub group: String,
    /// SHA-256 of its file; empty in runs of older versions.
    #[serde(default)]
    pub sha256: String,
}

/// The rows of a file of [`write_splits_csv`]; the images themselves are not looked for.
///
/// # Errors
/// A data error when the file cannot be read.
pub fn read_splits_csv(path: &Path) -> Result<Vec<SplitRow>> {
    let failed = |error: csv::Error| {
        DataError::invalid(format!("cannot read {}: {error}", path.display()), "every run directory has one")
    };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    reader.deserialize().map(|row| row.map_err(|error| failed(error).into())).collect()
}

struct ManifestReader<'a> {
    file: &'a Path,
    /// What paths are relative to.
    root: &'a Path,
    /// Paths may be absolute and have `..` parts.
    outside: bool,
    links_may_leave: bool,
    /// What the columns are called.
    names: &'a ColumnNames,
}

/// Positions of the columns.
struct ColumnPositions {
    path: usize,
    label: usize,
    split: Option<usize>,
    group: Option<usize>,
    /// How many there are.
    count: usize,
}

impl ManifestReader<'_> {
    /// Reads every row; all problems are reported together, with their lines.
    fn read(&self) -> Result<Listing> {
        let text = self.text()?;
        let real_root = self.root.canonicalize().map_err(|error| {
            DataError::invalid(format!("cannot read {}: {error}", self.root.display()), "check that the folder exists")
        })?;
        let mut rows =
            csv::ReaderBuilder::new().flexible(true).delimiter(delimiter(&text)).from_reader(text.as_bytes());
        let columns = self.columns(&rows.headers().map_err(|error| self.malformed(&error))?.clone())?;
        let mut entries = Vec::new();
        let mut problems = Problems::default();
        let mut seen: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for row in rows.records() {
            let row = row.map_err(|error| self.malformed(&error))?;
            let start = row.position().map_or(0, |position| position.byte() as usize);
            match self.entry(&row, &columns, &real_root) {
                Ok(entry) => match seen.entry(entry.name.clone()) {
                    MapEntry::Occupied(first) => {
                        let (place, class) = first.get();
                        problems.add(line(&text, start), repeated(&entry, line(&text, *place), class));
                    }
                    MapEntry::Vacant(place) => {
                        place.insert((start, entry.class.clone()));
                        entries.push(entry);
                    }
                },
                Err(problem) => problems.add(line(&text, start), problem),
            }
        }
        if problems.count > 0 {
            return Err(self.rejected(&problems).into());
        }
        if entries.is_empty() {
            return Err(self.invalid("it lists no images", "add one row per image below the header").into());
        }
        Ok(Listing { source: self.file.to_path_buf(), entries, ..Listing::default() })
    }

    /// The content as text; UTF-16 is told by its byte order mark.
    fn text(&self) -> Result<String> {
        let bytes = read_regular(self.file).map_err(|error| {
            let message = format!("cannot read the manifest {}: {error}", self.file.display());
            DataError::invalid(message, "data.manifest names a CSV file with the columns path,label[,split][,group]")
        })?;
        let wide = |decode: fn([u8; 2]) -> u16| {
            let units = bytes[2..].chunks_exact(2).map(|pair| decode([pair[0], pair[1]]));
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
        };
        Ok(match bytes.as_slice() {
            [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
            [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
            [0xEF, 0xBB, 0xBF, rest @ ..] => self.utf8(rest)?.to_owned(),
            all => self.utf8(all)?.to_owned(),
        })
    }

    fn utf8<'b>(&self, bytes: &'b [u8]) -> Result<&'b str, DataError> {
        const HINT: &str = "save it as UTF-8 (\"CSV UTF-8\" in Excel); Latin-1 and Windows-1252 are not read, since \
                            nothing tells them apart";
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count();
            self.invalid(&format!("line {line} is not UTF-8"), HINT)
        })?;
        if text.contains('\0') {
            return Err(self.invalid("it holds zero bytes, as UTF-16 without a byte order mark does", HINT));
        }
        Ok(text)
    }

    fn columns(&self, header: &csv::StringRecord) -> Result<ColumnPositions> {
        let names: Vec<String> = header.iter().map(|name| name.trim().to_lowercase()).collect();
        let find = |wanted: &str| {
            let same = |name: &String| *name == wanted.to_lowercase();
            let mut found = names.iter().enumerate().filter(|(_, name)| same(name)).map(|(at, _)| at);
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
                    "the first line names the columns, separated by commas: path,label[,split][,group]; data.columns says \
                     what they are called instead",
                )
            })
        };
        // A column that the settings name has to be there; the usual ones for split and group need not.
        let optional = |given: &Option<String>, usual: &str| match given {
            Some(given) => required(given).map(Some),
            None => find(usual),
        };
        let ColumnNames { path, label, split, group } = self.names;
        let path = required(path.as_deref().unwrap_or("path"))?;
        let label = required(label.as_deref().unwrap_or("label"))?;
        let (split, group) = (optional(split, "split")?, optional(group, "group")?);
        for (known, found) in [("split", split), ("group", group)] {
            if let Some(meant) = names.iter().find(|name| found.is_none() && is_misspelling(name, known)) {
                return Err(self
                    .invalid(
                        &format!("unknown column {meant:?}: did you mean {known}?"),
                        "rename it; if it means something else, give it a name less like one that has a meaning",
                    )
                    .into());
            }
        }
        Ok(ColumnPositions { path, label, split, group, count: names.len() })
    }

    /// One row, or what is wrong with it.
    fn entry(&self, row: &csv::StringRecord, columns: &ColumnPositions, real_root: &Path) -> Result<Entry, Flaw> {
        let field = |column: usize| row.get(column).unwrap_or_default();
        let optional = |column: Option<usize>| column.map(field).map(str::trim).filter(|value| !value.is_empty());
        if row.len() != columns.count {
            let what = format!("has another number of columns than the header: {}, not {}", row.len(), columns.count);
            return Err(Flaw { kind: "with another number of columns", what });
        }
        let written = &*self.slashed(field(columns.path));
        let name = self.name(written, real_root)?;
        let class = field(columns.label).trim().to_owned();
        if class.is_empty() {
            return Err(Flaw { kind: "without a label", what: format!("{written:?} has no label") });
        }
        let split = optional(columns.split).map(|value| {
            Split::parse(value).ok_or_else(|| Flaw {
                kind: "with an unknown split",
                what: format!("the split {value:?} is none of train, val, test (or empty: drawn)"),
            })
        });
        let path = self.root.join(&name);
        self.check_file(written, &path, real_root)?;
        let group = optional(columns.group).map(str::to_owned);
        Ok(Entry { path, name, class, group, split: split.transpose()?, copied: None })
    }

    /// A path as Windows writes it, where no file is called so.
    fn slashed<'p>(&self, written: &'p str) -> Cow<'p, str> {
        if written.contains('\\') && !self.root.join(written).exists() {
            Cow::Owned(written.replace('\\', "/"))
        } else {
            Cow::Borrowed(written)
        }
    }

    /// The path in one spelling: no `.` parts, `/` between parts, relative where it is inside the root.
    fn name(&self, written: &str, real_root: &Path) -> Result<String, Flaw> {
        let path = Path::new(written);
        let path = if self.outside {
            path.strip_prefix(self.root).or(path.strip_prefix(real_root)).unwrap_or(path)
        } else {
            path
        };
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
                Component::CurDir => {}
                Component::ParentDir if self.outside => parts.push("..".into()),
                Component::RootDir if self.outside => parts.push(String::new()),
                Component::Prefix(prefix) if self.outside => parts.push(prefix.as_os_str().to_string_lossy().into()),
                Component::ParentDir => {
                    return Err(Flaw { kind: "with a `..` part", what: format!("{written:?} has a `..` part") });
                }
                Component::RootDir | Component::Prefix(_) => {
                    return Err(Flaw {
                        kind: "with an absolute path",
                        what: format!("{written:?} is an absolute path"),
                    });
                }
            }
        }
        if parts.is_empty() {
            return Err(Flaw { kind: "without a path", what: "the path is empty".into() });
        }
        Ok(parts.join("/"))
    }

    fn check_file(&self, written: &str, path: &Path, real_root: &Path) -> Result<(), Flaw> {
        let real = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Flaw {
                kind: "whose file does not exist",
                what: format!("{written:?} does not exist in {}", self.root.display()),
            },
            _ => Flaw { kind: "whose file cannot be read", what: format!("{written:?} cannot be read: {error}") },
        })?;
        if !self.links_may_leave && !real.starts_with(real_root) {
            let what = format!("{written:?} leads outside the manifest's folder, to {}", real.display());
            return Err(Flaw { kind: "that lead outside", what });
        }
        if !real.is_file() {
            return Err(Flaw { kind: "that are no files", what: format!("{written:?} is not a regular file") });
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

    fn rejected(&self, problems: &Problems) -> DataError {
        let plural = if problems.count == 1 { "row" } else { "rows" };
        let message = format!("{} bad {plural} in the manifest:{}", problems.count, indented(problems.lines()));
        self.invalid(
            &message,
            "paths are relative to the manifest's folder and stay inside it, unless data.allow_outside is true; each is \
             listed once",
        )
    }
}

/// What is wrong with a row.
struct Flaw {
    /// Completes "rows …".
    kind: &'static str,
    what: String,
}

/// The flaws of all rows, by kind, so that one mistake made in every row is one message.
#[derive(Default)]
struct Problems {
    count: usize,
    /// In the order of their first row.
    kinds: Vec<(&'static str, Vec<String>)>,
}

impl Problems {
    fn add(&mut self, line: usize, Flaw { kind, what }: Flaw) {
        self.count += 1;
        let text = format!("line {line}: {what}");
        match self.kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, lines)) => lines.push(text),
            None => self.kinds.push((kind, vec![text])),
        }
    }

    /// The first few of each kind, then their number.
    fn lines(&self) -> Vec<String> {
        const SHOWN: usize = 3;
        let mut all = Vec::new();
        for (kind, lines) in &self.kinds {
            all.extend(lines.iter().take(SHOWN).cloned());
            if lines.len() > SHOWN {
                all.push(format!("and {} more rows {kind}", lines.len() - SHOWN));
            }
        }
        all
    }
}

fn repeated(entry: &Entry, first: usize, class: &str) -> Flaw {
    if entry.class == class {
        return Flaw { kind: "listed before", what: format!("{:?} is listed before, in line {first}", entry.name) };
    }
    let what = format!("{:?} is labelled {:?}, but {class:?} in line {first}", entry.name, entry.class);
    Flaw { kind: "labelled twice", what }
}

/// The line, from 1, of the row that starts at a byte. The reader's own count is wrong where lines end with CR LF.
fn line(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let blank = bytes.iter().skip(start).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    1 + bytes.iter().take(start + blank).filter(|&&byte| byte == b'\n').count()
}

/// What separates the columns: spreadsheets write semicolons or tabs where the comma is a decimal point.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    let count = |delimiter: u8| header.bytes().filter(|&byte| byte == delimiter).count();
    // The first of the most frequent ones.
    [b'\t', b';', b','].into_iter().max_by_key(|&delimiter| count(delimiter)).unwrap_or(b',')
}

/// Whether a column is likely meant to be the known one: `groups`, `gruop`, `group_id`.
fn is_misspelling(name: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(name, known) <= 1 || name.split(['_', '-', ' ']).any(|word| word == known)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
