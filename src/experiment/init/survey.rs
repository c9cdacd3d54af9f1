//! What there is: images, classes, groups, sizes, a class of good parts.

use super::{InitOptions, groups};
use crate::config::{self, ColumnNames, DataSettings, GroupBy};
use crate::data::decode::dimensions;
use crate::data::{Dataset, Labels, Split, beside_splits, tell_columns};
use crate::error::{DataError, Error, Result};
use crate::report::Console;
use crate::system::shown::{Shown, counted};
use crate::system::tables::csv_bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What sound parts are called, in lower case without separators and points.
const GOOD: [&str; 19] = [
    "good", "ok", "okay", "nominal", "normal", "intact", "sound", "pass", "passed", "nodefect", "defectfree",
    "nondefective", "healthy", "io", "gut", "clean", "flawless", "negative", "perfect",
];

/// Images whose size is read.
const MEASURED: usize = 256;

/// Folders beside a table that are tried for its images.
const BESIDE: usize = 20;

/// How the images are listed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Listed {
    /// By folders, which are used as they are.
    Folders,
    /// By folders that get a manifest, so that each image has its group.
    Grouped(BTreeMap<String, String>),
    /// By folders for anomaly detection: sound parts alone in `train`, and defects in `test`. All go into a manifest.
    Anomalies,
    /// By a table: the columns that are not called as ours (ours, theirs), whether paths lead outside its folder, and the
    /// folder that they are relative to, if it is another one.
    Table { columns: Vec<(&'static str, String)>, outside: bool, root: Option<PathBuf> },
}

/// What was found.
pub(super) struct Survey {
    pub listed: Listed,
    pub dataset: Dataset,
    /// The class of sound parts.
    pub good: Option<String>,
    /// Median of the shorter sides, in pixels; none when no size could be read.
    pub side: Option<u32>,
    /// Median of the longer sides by the shorter ones.
    pub elongation: f64,
    /// Classes and folders that are left out.
    pub ignored: Vec<String>,
    /// How many patients DICOM files name, when images of one are to stay together.
    pub patients: Option<usize>,
}

impl Survey {
    pub(super) fn of(data: &Path, options: &InitOptions, console: &Console) -> Result<Self> {
        let mut ignored = options.ignore.clone();
        let (mut listed, dataset) = if data.is_file() {
            table(data, options.label_column.as_deref(), &ignored)?
        } else if let Some(dataset) = anomalies(data, &ignored)? {
            (Listed::Anomalies, dataset)
        } else {
            let beside = beside_splits(data).unwrap_or_default();
            ignored.extend(beside.into_iter().filter(|name| !options.ignore.contains(name)));
            (Listed::Folders, folders_as_they_are(data, &ignored, GroupBy::Listed)?)
        };
        dataset.warnings.iter().for_each(|warning| console.warn(warning));
        dataset.notes.iter().for_each(|note| console.info(note));
        let drawn = [Split::Val, Split::Test].iter().any(|split| !dataset.named.contains(split));
        let grouped = !drawn || dataset.samples.iter().any(|sample| sample.group.is_some());
        let mut patients = if grouped || listed == Listed::Anomalies { None } else { patients(&dataset) };
        // A patient may be in two of the splits that the data names.
        if patients.is_some() && !dataset.named.is_empty() {
            let of_folders = listed == Listed::Folders;
            let found = of_folders.then(|| folders_as_they_are(data, &ignored, GroupBy::Patient));
            found.iter().filter_map(|found| found.as_ref().err()).for_each(|error| console.warn(error.to_string()));
            patients = patients.filter(|_| found.is_some_and(|found| found.is_ok()));
        }
        if listed == Listed::Folders
            && drawn
            && patients.is_none()
            && let Some(found) = groups::suggested(&dataset)
        {
            if found.parted > 0 {
                console.warn(format!(
                    "names suggest {} with images both in train and in another split of the data: scores of that split \
                     would partly measure memory",
                    counted(found.parted, "group")
                ));
            }
            listed = Listed::Grouped(found.of);
        }
        let good = match options.good.as_deref() {
            Some(good) if !dataset.classes.iter().any(|class| class == good) => {
                let hint = config::for_unknown_class(good, &dataset.classes);
                return Err(Error::usage_hint(format!("--good: the data has no class {good:?}"), hint));
            }
            Some(good) => Some(good.to_owned()),
            None => good_class(&dataset.classes),
        };
        let (side, elongation) = measure(&dataset);
        Ok(Self { listed, dataset, good, side, elongation, ignored, patients })
    }

    /// Images of each class.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        let count = |label| self.dataset.samples.iter().filter(|sample| sample.label == label).count();
        self.dataset.classes.iter().enumerate().map(|(label, class)| (class.clone(), count(label))).collect()
    }

    /// The group of each image that has one.
    fn groups(&self) -> impl Iterator<Item = &str> {
        let of_names = match &self.listed {
            Listed::Grouped(groups) => Some(groups),
            _ => None,
        };
        self.dataset.samples.iter().filter_map(move |sample| {
            of_names.map_or(sample.group.as_deref(), |groups| groups.get(&sample.name).map(String::as_str))
        })
    }

    /// How many groups there are; none without any.
    pub(super) fn group_count(&self) -> Option<usize> {
        Some(self.groups().collect::<BTreeSet<_>>().len()).filter(|&n| n > 0)
    }

    /// The manifest to write; none where the data is used as it is.
    pub(super) fn rows(&self) -> Option<Result<Vec<u8>>> {
        let groups = match &self.listed {
            Listed::Grouped(groups) => Some(groups),
            Listed::Anomalies => None,
            Listed::Folders | Listed::Table { .. } => return None,
        };
        let rows = csv_bytes(|table| {
            let named = groups.is_some() && !self.dataset.named.is_empty();
            let columns = [Some("path"), Some("label"), groups.map(|_| "group"), named.then_some("split")];
            table.write_record(columns.into_iter().flatten())?;
            for sample in &self.dataset.samples {
                let class = self.dataset.classes[sample.label].as_str();
                let group = groups.map(|groups| groups.get(&sample.name).map_or("", String::as_str));
                let split = named.then(|| groups::settled(&self.dataset, sample).unwrap_or(Split::Train).name());
                table.write_record([sample.name.as_str(), class].into_iter().chain(group).chain(split))?;
            }
            Ok(())
        });
        Some(rows.map_err(Error::csv(Path::new("the list of images"))))
    }
}

/// The `--set` that leaves these names out; none where there are no names.
fn ignores(names: &[String]) -> Vec<String> {
    if names.is_empty() { Vec::new() } else { vec![format!("data.ignore={names:?}")] }
}

/// The settings of `[data]` with some keys given.
fn settings(sets: &[String]) -> Result<DataSettings> {
    config::load(None, sets).map(|settings| settings.data)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| DataError::invalid(format!("{} is not valid UTF-8", path.shown()), "rename it").into())
}

fn folders_as_they_are(data: &Path, ignored: &[String], by: GroupBy) -> Result<Dataset> {
    let settings = settings(&[vec![format!("data.root={}", text(data)?)], ignores(ignored)].concat())?;
    Dataset::open(&DataSettings { group_by: by, ..settings })
}

/// A CSV file: which of its columns are which is told by their names, or by what is in them.
fn table(file: &Path, label: Option<&str>, ignored: &[String]) -> Result<(Listed, Dataset)> {
    let ColumnNames { path, label, split, group, mask } = tell_columns(file, label)?;
    let columns = [("path", path), ("label", label), ("split", split), ("group", group), ("mask", mask)];
    let columns: Vec<(&str, String)> =
        columns.into_iter().filter_map(|(key, theirs)| theirs.map(|theirs| (key, theirs))).collect();
    let mut given = [vec![format!("data.manifest={}", text(file)?)], ignores(ignored)].concat();
    given.extend(columns.iter().map(|(key, theirs)| format!("data.columns.{key}={theirs}")));
    let open = |given: &[String]| Dataset::open(&settings(given)?);
    let error = match open(&given) {
        Ok(dataset) => return Ok((Listed::Table { columns, outside: false, root: None }, dataset)),
        Err(error) => error,
    };
    given.push("data.allow_outside=true".into());
    if let Ok(dataset) = open(&given) {
        return Ok((Listed::Table { columns, outside: true, root: None }, dataset));
    }
    // Names alone, of images in a folder beside the table.
    let beside = file.parent().unwrap_or(Path::new(""));
    for root in folders(beside).unwrap_or_default().iter().take(BESIDE).map(|name| beside.join(name)) {
        given.push(format!("data.root={}", text(&root)?));
        if let Ok(dataset) = open(&given) {
            return Ok((Listed::Table { columns, outside: true, root: Some(root) }, dataset));
        }
        given.pop();
    }
    // That of the strictest reading.
    Err(error)
}

/// The images of a tree for anomaly detection, as of `MVTec` AD, `VisA` or `BTAD`: one class of sound parts in `train`, and
/// that class and others in `test`. None when it is not such a tree.
fn anomalies(root: &Path, ignored: &[String]) -> Result<Option<Dataset>> {
    let (train, test) = (root.join("train"), root.join("test"));
    let (Some(sound), Some(tested)) = (folders(&train), folders(&test)) else { return Ok(None) };
    let tested: Vec<String> = tested.into_iter().filter(|class| !ignored.contains(class)).collect();
    let [only] = sound.as_slice() else { return Ok(None) };
    if tested.len() < 2 && tested.first() == Some(only) {
        return Ok(None);
    }
    let classes: Vec<String> = sound.iter().chain(&tested).cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let mut all = Dataset { classes: classes.clone(), ..Dataset::default() };
    let settings = settings(&[vec![format!("data.root={}", text(root)?)], ignores(ignored)].concat())?;
    for (folder, name) in [(train, "train"), (test, "test")] {
        let part = Dataset::of_classes(&folder, &classes, Labels::Classes, &settings, (None, Split::Train))?;
        all.warnings.extend(part.warnings);
        for mut sample in part.samples {
            sample.name = format!("{name}/{}", sample.name);
            all.samples.push(sample);
        }
    }
    Ok(Some(all))
}

/// How many patients there are, where most images are DICOM files and some patients have several.
fn patients(dataset: &Dataset) -> Option<usize> {
    let ending = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    // Without an ending, or with the digits of an identifier for one.
    let is_dicom = |path: &Path| match ending(path).as_str() {
        "dcm" | "dicom" => true,
        other => other.bytes().all(|byte| byte.is_ascii_digit()),
    };
    let files = dataset.samples.iter().filter(|sample| is_dicom(&sample.path)).count();
    let patients = if 2 * files > dataset.samples.len() { dataset.patients().len() } else { 0 };
    (patients > 1 && patients < files).then_some(patients)
}

/// The names of the folders in a folder, sorted; none when it cannot be read.
fn folders(folder: &Path) -> Option<Vec<String>> {
    let entries = folder.read_dir().ok()?.filter_map(std::result::Result::ok);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !name.starts_with("__"))
        .collect();
    names.sort();
    Some(names)
}

/// The one class that is called as sound parts are.
fn good_class(classes: &[String]) -> Option<String> {
    let plain = |class: &str| class.to_lowercase().replace(['_', '-', ' ', '.'], "");
    let mut found = classes.iter().filter(|class| GOOD.contains(&plain(class).as_str()));
    match (found.next(), found.next()) {
        (Some(class), None) => Some(class.clone()),
        _ => None,
    }
}

/// The medians of the shorter sides and of the elongations.
fn measure(dataset: &Dataset) -> (Option<u32>, f64) {
    let step = dataset.samples.len().div_ceil(MEASURED).max(1);
    let sizes: Vec<(u32, u32)> =
        dataset.samples.iter().step_by(step).filter_map(|sample| dimensions(&sample.path)).collect();
    let mut sides: Vec<u32> = sizes.iter().map(|&(width, height)| width.min(height)).collect();
    sides.sort_unstable();
    let long = |&(width, height): &(u32, u32)| f64::from(width.max(height)) / f64::from(width.min(height).max(1));
    let mut elongations: Vec<f64> = sizes.iter().map(long).collect();
    elongations.sort_by(f64::total_cmp);
    (sides.get(sides.len() / 2).copied(), elongations.get(elongations.len() / 2).copied().unwrap_or(1.0))
}
