//! Runs that are there already: listed, and put side by side.

use crate::config::{self, ProbeMethod, Settings};
use crate::data::read_splits_csv;
use crate::error::{Error, Result};
use crate::ladder::Rung;
use crate::metrics::Doubt;
use crate::report::predictions::{Predicted, Predictions};
use crate::report::{Comparison, Contender, Finished, PREDICTIONS, Question, Repeats, RunRecord, Status};
use crate::system::digest::sha256;
use crate::system::shown::Shown;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use walkdir::WalkDir;

/// How deep runs are looked for: those of a comparison lie in a folder of their own.
const DEPTH: usize = 3;
/// Longest name of the folder of a comparison; a longer one ends in so many digits of its sum instead.
const LONGEST_NAME: usize = 100;
const SUM: usize = 12;

/// One run of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedRun {
    /// Its directory.
    pub run: PathBuf,
    /// When its record was last written, in UTC.
    pub date: Option<String>,
    /// How far it has come; none when its record cannot be read.
    pub status: Option<Status>,
    /// Why it cannot be read.
    pub damage: Option<String>,
    /// What learns.
    pub strategy: Option<String>,
    /// `model.backbone`
    pub backbone: Option<String>,
    /// On validation images.
    pub val_accuracy: Option<f64>,
    /// On test images.
    pub test_accuracy: Option<f64>,
    /// What speaks against these.
    pub doubts: Vec<Doubt>,
    /// The bytes of all its files.
    pub bytes: u64,
}

/// The runs in a folder and below it, the newest first.
///
/// # Errors
/// A usage error when there is no such folder.
pub fn list(folder: &Path) -> Result<Vec<ListedRun>> {
    if !folder.is_dir() {
        let hint = "name the folder that holds the runs, run.out of the config; the default is runs";
        return Err(Error::usage_hint(format!("there is no folder {}", folder.shown()), hint));
    }
    let mut runs = Vec::new();
    let mut walk = WalkDir::new(folder).max_depth(DEPTH).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        // What cannot be entered holds no run that could be listed.
        let Ok(entry) = entry else { continue };
        let record = entry.path().join("run.json");
        if entry.file_type().is_dir() && record.is_file() {
            let changed = record.metadata().and_then(|data| data.modified()).ok();
            runs.push((changed, ListedRun::of(entry.path(), changed)));
            walk.skip_current_dir();
        }
    }
    runs.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

impl ListedRun {
    fn of(folder: &Path, changed: Option<SystemTime>) -> Self {
        let files = WalkDir::new(folder).into_iter().filter_map(std::result::Result::ok);
        let sizes = files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file);
        let (record, damage) = match RunRecord::read(folder) {
            Ok(record) => (Some(record), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let result = record.as_ref().and_then(|record| record.result.as_ref());
        Self {
            run: folder.to_path_buf(),
            date: changed.and_then(utc),
            status: record.as_ref().map(|record| record.status),
            damage,
            strategy: record.as_ref().map(|record| record.strategy.clone()),
            backbone: record.as_ref().map(|record| record.backbone.name.clone()),
            val_accuracy: result.and_then(crate::report::RunResult::val_accuracy),
            test_accuracy: result.and_then(crate::report::RunResult::test_accuracy),
            doubts: record.as_ref().map(|record| record.doubts.clone()).unwrap_or_default(),
            bytes: sizes.map(|data| data.len()).sum(),
        }
    }

    /// Its status in a word or two.
    pub fn word(&self) -> &'static str {
        match self.status {
            None => "damaged",
            Some(Status::Done) => "done",
            Some(Status::Stopped) => "stopped",
            Some(Status::Failed) => "failed",
            Some(Status::Running) => "under way or killed",
        }
    }
}

/// As ISO 8601 writes it, to the second; none for a clock that is millennia off.
fn utc(time: SystemTime) -> Option<String> {
    Some(jiff::Timestamp::try_from(time).ok()?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Finished runs on the same test images side by side, each against the one before it; written into `out`.
///
/// # Errors
/// A usage error when one is not finished, has no test images, or other ones than the first.
pub fn side_by_side(folders: &[PathBuf], out: PathBuf, target: Option<f64>) -> Result<Comparison> {
    let mut contenders = Vec::new();
    let mut first: Option<(&PathBuf, TestImages)> = None;
    for folder in folders {
        let record = RunRecord::read(folder)?;
        if record.status != Status::Done {
            let hint = "continue it with `vitadapt finetune --resume`, or leave it out";
            return Err(Error::usage_hint(format!("{} is not finished", folder.shown()), hint));
        }
        let images = test_images(folder)?;
        match &first {
            None => first = Some((folder, images)),
            Some((other, known)) if !same_images(known, &images) => {
                return Err(Error::usage_hint(
                    format!("{} and {} were tested on other images or classes", other.shown(), folder.shown()),
                    "answers are compared image by image: compare runs with the same data.split_seed and classes, or \
                     score both on one folder with `vitadapt eval --data`",
                ));
            }
            Some(_) => {}
        }
        let settings = config::load(Some(&folder.join("config.toml")), &[])?;
        let name = folder.to_string_lossy().into_owned();
        contenders.push(contender(name, folder, record, &settings));
    }
    let question = Question { name: "runs".into(), folder: out, repeats: Repeats::Seeds(1), target };
    let comparison = Comparison::new(question, &contenders, Vec::new())?;
    comparison.write()?;
    Ok(comparison)
}

/// The name of the folder in which runs are put side by side, so that other runs have another one.
pub fn named_after(runs: &[PathBuf]) -> String {
    let whole: Vec<PathBuf> = runs.iter().map(|run| run.canonicalize().unwrap_or_else(|_| run.clone())).collect();
    let name = |run: &PathBuf| run.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let names: Vec<String> = whole.iter().map(name).collect();
    let all = format!("compare-{}", names.join("-"));
    let paths: Vec<u8> = whole.iter().flat_map(|run| [run.as_os_str().as_encoded_bytes(), b"\n"].concat()).collect();
    let sum = sha256(&paths);
    let together = whole.iter().all(|run| run.parent() == whole[0].parent());
    match all.len() {
        ..=LONGEST_NAME if together => all,
        ..=LONGEST_NAME => format!("{all}-{}", &sum[..SUM]),
        _ => format!("compare-{}-runs-{}", names.len(), &sum[..SUM]),
    }
}

/// The test images of a run: by name, the class and, where it is known, the content.
type TestImages = BTreeMap<String, (String, String)>;

fn test_images(folder: &Path) -> Result<TestImages> {
    let file = folder.join(PREDICTIONS);
    if !file.is_file() {
        let hint = "compare runs whose data has test images";
        return Err(Error::usage_hint(format!("{} has no answers for test images", folder.shown()), hint));
    }
    let Predictions { classes, rows } = Predictions::read(&file)?;
    let sums = read_splits_csv(&folder.join("splits.csv"))?.into_iter().map(|row| (row.path, row.sha256));
    let mut sums: BTreeMap<String, String> = sums.collect();
    let image = |row: Predicted| {
        let sum = sums.remove(&row.path).unwrap_or_default();
        (row.path, (classes.get(row.label).cloned().unwrap_or_default(), sum))
    };
    Ok(rows.into_iter().map(image).collect())
}

/// Whether test images have the same names, classes and, where both are known, contents.
fn same_images(a: &BTreeMap<String, (String, String)>, b: &BTreeMap<String, (String, String)>) -> bool {
    let same =
        |(a, b): (&(String, String), &(String, String))| a.0 == b.0 && (a.1 == b.1 || a.1.is_empty() || b.1.is_empty());
    a.keys().eq(b.keys()) && a.values().zip(b.values()).all(same)
}

fn contender(name: String, folder: &Path, record: RunRecord, settings: &Settings) -> Contender {
    let rung = match record.strategy.as_str() {
        "zeroshot" => Rung::Zeroshot,
        "probe" if record.probe.as_ref().is_some_and(|probe| probe.method == ProbeMethod::Knn) => Rung::Knn,
        "probe" => Rung::Probe,
        _ => Rung::Full,
    };
    let only_head = matches!(rung, Rung::Zeroshot | Rung::Knn | Rung::Probe);
    Contender {
        strategy: name.clone(),
        backbone_updated: if only_head { "no".into() } else { rung.backbone_updated(settings) },
        head_updated: rung.head_updated().to_owned(),
        finished: vec![Finished { name, folder: folder.to_path_buf(), record }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn other_runs_have_another_folder() {
        let named = |runs: &[&str]| named_after(&runs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(named(&["runs/first", "runs/second"]), "compare-first-second");
        let apart = [named(&["a/first", "b/second"]), named(&["a/first", "c/second"])];
        assert!(
            apart.iter().all(|name| name.starts_with("compare-first-second-")) && apart[0] != apart[1],
            "{apart:?}"
        );
        let long: Vec<String> = (0..40).map(|i| format!("runs/bearing-partial-{i}")).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        assert!(named(&long).starts_with("compare-40-runs-") && named(&long) != named(&long[1..]));
    }

    #[test]
    fn an_image_that_changed_is_another_one() {
        let images = |sum: &str| BTreeMap::from([("a.png".to_owned(), ("good".to_owned(), sum.to_owned()))]);
        assert!(same_images(&images("1"), &images("1")) && !same_images(&images("1"), &images("2")));
        assert!(same_images(&images("1"), &images("")), "runs of older versions do not know the sums");
        assert!(!same_images(&images("1"), &BTreeMap::new()));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)).as_deref(), Some(date));
        }
    }
}
