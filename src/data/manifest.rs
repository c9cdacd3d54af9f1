//! A CSV file that lists images: `path,label[,split][,group][,mask]`, in any order of columns.

use super::columns::{ColumnPositions, ManifestHeader, is_image};
use super::listing::{Listing, indented};
use super::rows::{Flaw, Lines, Problems, short};
use super::{Entry, MaskFile, ScoredSplit, Split};
use crate::config::{ColumnNames, DataSettings, DataSource};
use crate::error::{DataError, Error, Result};
use crate::system::files::read_regular;
use crate::system::shown::{Shown, counted};
use std::borrow::Cow;
use std::collections::btree_map::{BTreeMap, Entry as MapEntry};
use std::path::{Component, Path, PathBuf};

/// All rows of a manifest. Paths are relative to the settings' folder; unless they may lead outside, they stay inside it,
/// links included.
pub(super) fn list(file: &Path, settings: &DataSettings) -> Result<Listing> {
    let (root, outside) = (settings.folder(), settings.allow_outside);
    ManifestReader { file, root, outside, links_may_leave: outside, gone: false, names: &settings.columns }.read()
}

/// All rows of a run's `splits.csv`, whose paths were checked when it was written: below a data root, links may lead
/// anywhere. Where images may be `gone`, they are not looked for.
pub(super) fn list_splits(file: &Path, root: &Path, outside: bool, gone: bool) -> Result<Listing> {
    ManifestReader { file, root, outside, links_may_leave: true, gone, names: &ColumnNames::default() }.read()
}

/// The rows of a manifest to be scored: all, or, where it names splits, those of `part` (none: test). Its columns are called as
/// the settings say, or by the usual names.
pub(super) fn list_scored(file: &Path, settings: &DataSettings, part: Option<Split>) -> Result<Listing> {
    let columns = settings.columns.among(&manifest_table(file, 0)?.0);
    let source = DataSource::Manifest(file.to_path_buf());
    let mut listing = list(file, &DataSettings { source, base: None, columns, ..settings.clone() })?;
    listing.part = ScoredSplit::of(file, listing.entries.iter().filter_map(|entry| entry.split).collect(), part)?;
    if let Some(part) = &listing.part {
        listing.entries.retain(|entry| entry.split == Some(part.scored));
    }
    Ok(listing)
}

/// The files that a manifest lists, there or not, relative to its folder; no label is needed.
pub(super) fn files(file: &Path, columns: &ColumnNames) -> Result<Vec<PathBuf>> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let names = &columns.among(&manifest_table(file, 0)?.0);
    let reader = ManifestReader { file, root: folder, outside: true, links_may_leave: true, gone: false, names };
    let text = reader.text()?;
    let mut rows = table(&text);
    let column = ManifestHeader::new(file, rows.headers().map_err(|error| reader.malformed(&error))?).path(names)?;
    let mut files = Vec::new();
    for row in filled(&mut rows) {
        let row = row.map_err(|error| reader.malformed(&error))?;
        match row.get(column).unwrap_or_default() {
            "" => {
                let line = Lines::of(&text).at(row.position().map_or(0, |position| position.byte() as usize));
                return Err(reader
                    .invalid(&format!("line {line} names no file"), "fill it in, or remove the row")
                    .into());
            }
            written => files.push(folder.join(&*reader.slashed(written))),
        }
    }
    Ok(files)
}

/// Which columns a manifest that nobody has described means, by their names or by what is in them. `label` is the column of
/// the labels, if it is known.
///
/// # Errors
/// A data error when the file cannot be read, or when no column or several may have the labels.
pub fn tell_columns(file: &Path, label: Option<&str>) -> Result<ColumnNames> {
    let (header, rows) = manifest_table(file, usize::MAX)?;
    if let Some(image) = header.iter().find(|name| is_image(name)) {
        let message =
            format!("{}: its first line has an image, {:?}, not the names of the columns", file.shown(), short(image));
        return Err(DataError::invalid(message, "put a line such as path,label above it").into());
    }
    ColumnNames::told_by_rows(&header, &rows, label).map_err(|candidates| {
        let (like, shown) = if candidates.is_empty() { ("none looks", &header) } else { ("several look", &candidates) };
        let (file, shown) = (file.shown(), shown.join(", "));
        let message = format!("{file}: no column has a usual name for labels, and {like} like them: {}", short(&shown));
        DataError::invalid(message, "say which column has the labels: --label-column NAME").into()
    })
}

/// What the columns of a manifest are called, and its first rows as they are, at most so many.
fn manifest_table(file: &Path, most: usize) -> Result<(Vec<String>, Vec<csv::StringRecord>)> {
    let names = &ColumnNames::default();
    let reader = ManifestReader { file, root: Path::new(""), outside: true, links_may_leave: true, gone: false, names };
    let text = reader.text()?;
    let mut rows = table(&text);
    let header = rows.headers().map_err(|error| reader.malformed(&error))?;
    let header = header.iter().map(str::to_owned).collect();
    let rows = filled(&mut rows)
        .take(most)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| reader.malformed(&error))?;
    Ok((header, rows))
}

/// Kinds of flaws that hints are about.
const UPWARD: &str = "with a `..` part";
const ABSOLUTE: &str = "with an absolute path";
const ABSENT: &str = "whose file does not exist";
const OUTSIDE: &str = "that lead outside";
const OF_PATHS: [&str; 4] = [UPWARD, ABSOLUTE, ABSENT, OUTSIDE];
const LISTED_TWICE: &str = "listed before";
const LABELLED_TWICE: &str = "labelled twice";

struct ManifestReader<'a> {
    file: &'a Path,
    /// What paths are relative to.
    root: &'a Path,
    /// Paths may be absolute and have `..` parts.
    outside: bool,
    links_may_leave: bool,
    /// Files may be missing.
    gone: bool,
    /// What the columns are called.
    names: &'a ColumnNames,
}

impl ManifestReader<'_> {
    /// Reads every row; all problems are reported together, with their lines.
    fn read(&self) -> Result<Listing> {
        let text = self.text()?;
        let real_root = match self.root.canonicalize() {
            Ok(real) => real,
            Err(_) if self.gone => self.root.to_path_buf(),
            Err(error) => {
                let message = format!("cannot read {}: {error}", self.root.shown());
                return Err(DataError::invalid(message, "check that the folder exists").into());
            }
        };
        let mut rows = table(&text);
        let header = rows.headers().map_err(|error| self.malformed(&error))?;
        let columns = ManifestHeader::new(self.file, header).columns(self.names)?;
        let mut entries = Vec::new();
        let mut problems = Problems::default();
        let mut lines = Lines::of(&text);
        let mut seen: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for row in filled(&mut rows) {
            let row = row.map_err(|error| self.malformed(&error))?;
            let line = lines.at(row.position().map_or(0, |position| position.byte() as usize));
            match self.entry(&row, &columns, &real_root) {
                Ok(entry) => match seen.entry(entry.name.clone()) {
                    MapEntry::Occupied(first) => {
                        let (first, class) = first.get();
                        problems.add(line, repeated(&entry, *first, class));
                    }
                    MapEntry::Vacant(place) => {
                        place.insert((line, entry.class.clone()));
                        entries.push(entry);
                    }
                },
                Err(problem) => problems.add(line, problem),
            }
        }
        if problems.count() > 0 {
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
            let message = format!("cannot read the manifest {}: {error}", self.file.shown());
            DataError::invalid(message, "it should be a CSV file whose first line names its columns")
        })?;
        let wide = |decode: fn([u8; 2]) -> u16| {
            let units = bytes[2..].chunks_exact(2).map(|pair| decode([pair[0], pair[1]]));
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
        };
        let mut text = match bytes.as_slice() {
            [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
            [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
            [0xEF, 0xBB, 0xBF, rest @ ..] => self.utf8(rest)?.to_owned(),
            all => self.utf8(all)?.to_owned(),
        };
        // A line `sep=;` for spreadsheets becomes a blank one, which counts as a line and is passed over.
        if let Some(end) = text.find('\n').filter(|&end| text.starts_with("sep=") && end <= "sep=".len() + 3) {
            text.drain(..end);
        }
        Ok(text)
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
                what: format!("the split {value:?} is not one of train, val, test (or empty: drawn)"),
            })
        });
        let path = self.root.join(&name);
        self.check_file(written, &path, real_root)?;
        let group = optional(columns.group).map(str::to_owned);
        let mask = optional(columns.mask).map(|written| self.mask(written, real_root)).transpose()?;
        Ok(Entry { path, name, class, group, mask, split: split.transpose()?, copied: None })
    }

    /// The mask of an image.
    fn mask(&self, written: &str, real_root: &Path) -> Result<MaskFile, Flaw> {
        let written = &*self.slashed(written);
        let name = self.name(written, real_root)?;
        let path = self.root.join(&name);
        self.check_file(written, &path, real_root)?;
        Ok(MaskFile { path, name })
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
                    return Err(Flaw { kind: UPWARD, what: format!("{written:?} has a `..` part") });
                }
                Component::RootDir | Component::Prefix(_) => {
                    return Err(Flaw { kind: ABSOLUTE, what: format!("{written:?} is an absolute path") });
                }
            }
        }
        if parts.is_empty() {
            return Err(Flaw { kind: "without a path", what: "the path is empty".into() });
        }
        Ok(parts.join("/"))
    }

    fn check_file(&self, written: &str, path: &Path, real_root: &Path) -> Result<(), Flaw> {
        if self.gone {
            return Ok(());
        }
        let real = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Flaw { kind: ABSENT, what: format!("{written:?} does not exist in {}", self.root.shown()) }
            }
            _ => Flaw { kind: "whose file cannot be read", what: format!("{written:?} cannot be read: {error}") },
        })?;
        if !self.links_may_leave && !real.starts_with(real_root) {
            let what = format!("{written:?} leads outside the manifest's folder, to {}", real.shown());
            return Err(Flaw { kind: OUTSIDE, what });
        }
        if !real.is_file() {
            return Err(Flaw { kind: "that are no files", what: format!("{written:?} is not a regular file") });
        }
        Ok(())
    }

    fn invalid(&self, message: &str, hint: &str) -> DataError {
        DataError::invalid(format!("{}: {message}", self.file.shown()), hint)
    }

    fn malformed(&self, error: &csv::Error) -> Error {
        self.invalid(&error.to_string(), "save it as comma-separated UTF-8 with the same number of columns in each row")
            .into()
    }

    fn rejected(&self, problems: &Problems) -> DataError {
        let message =
            format!("{} in the manifest:{}", counted(problems.count(), "bad row"), indented(problems.lines()));
        let hint = if problems.any_of(&OF_PATHS) {
            "paths are relative to the manifest's folder and stay inside it, unless data.allow_outside = true (of `eval \
             --data`: --allow-outside)"
        } else if problems.any_of(&[LISTED_TWICE, LABELLED_TWICE]) {
            "each image is listed once, with one label"
        } else {
            "each row has a path and a label, and where there is a column of splits one of train, val and test"
        };
        self.invalid(&message, hint)
    }
}

fn repeated(entry: &Entry, first: usize, class: &str) -> Flaw {
    if entry.class == class {
        return Flaw { kind: LISTED_TWICE, what: format!("{:?} is listed before, in line {first}", entry.name) };
    }
    let what = format!("{:?} is labelled {:?}, but {class:?} in line {first}", entry.name, entry.class);
    Flaw { kind: LABELLED_TWICE, what }
}

/// The header and rows of a table.
fn table(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().flexible(true).delimiter(delimiter(text)).from_reader(text.as_bytes())
}

/// The rows that have anything in them: spreadsheets write separators for rows that were emptied.
fn filled(rows: &mut csv::Reader<&[u8]>) -> impl Iterator<Item = csv::Result<csv::StringRecord>> {
    let is_blank = |row: &csv::StringRecord| row.iter().all(|field| field.trim().is_empty());
    rows.records().filter(move |row| !row.as_ref().is_ok_and(is_blank))
}

/// What separates the columns: spreadsheets write semicolons or tabs where the comma is a decimal point.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
    let count = |delimiter: u8| header.bytes().filter(|&byte| byte == delimiter).count();
    // The first of the most frequent ones.
    [b'\t', b';', b','].into_iter().max_by_key(|&delimiter| count(delimiter)).unwrap_or(b',')
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
