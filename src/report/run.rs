//! The run directory: one folder that holds everything about a run.

use super::forecast::Forecast;
use super::result::RunResult;
use crate::backbone::{PatchReadout, Readout};
use crate::cache::CacheUse;
use crate::config::{ProbeMethod, Settings};
use crate::data::kinds::ImageKinds;
use crate::data::transform::{Geometry, Normalization, Preprocess};
use crate::data::{Labels, Split};
use crate::error::{DataError, Error, Result, WeightsError};
use crate::features::ReferenceRecord;
use crate::metrics::{Doubt, Rules};
use crate::model::HeadKind;
use crate::probe::Knn;
use crate::system::files::create_folder;
use crate::system::json::{read_json, write_json};
use crate::system::lock::Lock;
use crate::system::shown::Shown;
use crate::train::soup::SoupRecord;
use crate::train::wise_ft::WiseFtRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The largest side of an input that a config can ask for, in pixels.
const LARGEST_SIDE: usize = 4096;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Under way, or killed.
    Running,
    /// Ended by a signal after saving.
    Stopped,
    /// Ended by an error.
    Failed,
    /// Complete.
    Done,
}

/// Which weights a run started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackboneRecord {
    /// `model.backbone` of the config.
    pub name: String,
    /// The family that was recognised.
    pub family: String,
    /// The architecture's name in its library.
    pub architecture: String,
    /// SHA-256 of the weights file.
    pub sha256: String,
}

/// Which images a run saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// SHA-256 over names, labels and contents.
    pub sha256: String,
    /// Images of each split.
    pub train: usize,
    /// Likewise.
    pub val: usize,
    /// Likewise.
    pub test: usize,
}

/// What a probe adds to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// The classifier.
    pub method: ProbeMethod,
    /// The features it reads.
    pub readout: Readout,
    /// The chosen C, k or β, or the share of patches that is kept.
    pub chosen: f64,
    /// Beside β, the weight of the votes.
    pub alpha: Option<f64>,
    /// The patches that it compares, when it is patchcore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patches: Option<PatchReadout>,
    /// The images it was fitted on in the end.
    pub fitted_on: Vec<Split>,
}

impl ProbeRecord {
    /// Whether images vote, alone or beside texts.
    pub fn votes(&self) -> bool {
        matches!(self.method, ProbeMethod::Knn | ProbeMethod::Tip)
    }

    /// The settings of the vote, when the probe is kNN.
    pub fn knn(&self) -> Option<Knn> {
        (self.method == ProbeMethod::Knn).then_some(Knn { k: self.chosen as usize })
    }
}

/// `run.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// How far it has come.
    pub status: Status,
    /// The vitadapt that made it.
    pub version: String,
    /// `strategy.kind` with its keys.
    pub strategy: String,
    /// `run.seed`
    pub seed: u64,
    /// The device it ran on.
    pub device: String,
    /// Compute threads.
    pub threads: usize,
    /// The weights.
    pub backbone: BackboneRecord,
    /// The images.
    pub data: DataRecord,
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// How images become input, statistics included.
    pub preprocess: Preprocess,
    /// What kind of images it was trained on; none in runs of older versions.
    pub images: Option<ImageKinds>,
    /// Trainable parameters.
    pub trainable_parameters: usize,
    /// All values.
    pub total_parameters: usize,
    /// How the head makes logits of features, unless the probe says that images vote; see [`RunRecord::head`].
    #[serde(default)]
    pub head: HeadKind,
    /// Divides the logits for calibrated probabilities; fitted on validation, none without validation images.
    pub temperature: Option<f64>,
    /// How parts are judged, when a good class is named.
    pub inspection: Option<Rules>,
    /// The reference set of its training images; none when that is switched off.
    #[serde(default, rename = "known")]
    pub reference: Option<ReferenceRecord>,
    /// Set when this is a probe and no training.
    pub probe: Option<ProbeRecord>,
    /// How many rows were cached, how many computed; none without a cache.
    pub cache: Option<CacheUse>,
    /// The mean of the best epochs and its scores, when it was requested.
    pub soup: Option<SoupRecord>,
    /// The mean with the weights before training and its scores, when it was requested.
    pub wise_ft: Option<WiseFtRecord>,
    /// The forecast of memory and time; none for a probe.
    pub forecast: Option<Forecast>,
    /// Floating-point operations of the backbone in it, as if nothing had been in the cache; none before its end.
    pub operations: Option<f64>,
    /// Wall time of all processes that worked on it.
    pub wall_seconds: f64,
    /// Largest resident memory.
    pub peak_memory_bytes: Option<u64>,
    /// What speaks against its scores.
    #[serde(default)]
    pub doubts: Vec<Doubt>,
    /// What the command printed at its end.
    pub result: Option<RunResult>,
}

/// A run directory, locked while this value lives.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    _lock: Lock,
}

impl Run {
    /// Creates and locks the directory of a new run. An earlier run of the same name is set aside as `NAME.1`,
    /// `NAME.2`, …, so that nothing is lost; its new place is returned.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process works there, an I/O error when it cannot be written.
    pub fn create(settings: &Settings) -> Result<(Self, Option<PathBuf>)> {
        let folder = settings.run.out.join(&settings.run.name);
        create_folder(&folder)?;
        let lock = Lock::acquire(&folder)?;
        if !folder.join("run.json").exists() {
            return Ok((Self { folder, _lock: lock }, None));
        }
        let mut number = 1;
        let mut aside = folder.with_file_name(format!("{}.{number}", settings.run.name));
        while aside.exists() {
            number += 1;
            aside.set_file_name(format!("{}.{number}", settings.run.name));
        }
        fs::rename(&folder, &aside).map_err(Error::io("set aside", &folder))?;
        create_folder(&folder)?;
        let lock = Lock::acquire(&folder)?;
        Ok((Self { folder, _lock: lock }, Some(aside)))
    }

    /// Locks the directory of a run to continue; none when it does not exist or was never started.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process works there.
    pub fn resume(settings: &Settings) -> Result<Option<Self>> {
        let folder = settings.run.out.join(&settings.run.name);
        if !folder.join("run.json").exists() {
            return Ok(None);
        }
        let lock = Lock::acquire(&folder)?;
        Ok(Some(Self { folder, _lock: lock }))
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_record(&self, record: &RunRecord) -> Result<()> {
        write_json(&self.path("run.json"), record)
    }
}

impl RunRecord {
    /// How its head makes logits of features: by what it remembers of images, where its probe says so.
    pub fn head(&self) -> HeadKind {
        let Some(probe) = &self.probe else { return self.head };
        let patches = probe.patches.map(HeadKind::Patches);
        patches.or(probe.knn().map(HeadKind::Vote)).unwrap_or(self.head)
    }

    /// The class of sound parts, where these are told from all others by their patches.
    pub fn sound_class(&self) -> Option<&String> {
        self.probe.as_ref()?.patches?;
        self.inspection.as_ref()?.good.first()
    }

    /// What the labels of its images say.
    pub fn labels(&self) -> Labels<'_> {
        self.sound_class().map_or(Labels::Classes, |good| Labels::Parts(std::slice::from_ref(good)))
    }

    /// The features that its head reads.
    pub fn readout(&self) -> Readout {
        self.probe.as_ref().map_or(Readout::POOL, |probe| probe.readout)
    }

    /// Reads the `run.json` of a run directory.
    ///
    /// # Errors
    /// A usage error when there is none, a weights error that says what is damaged or cannot be.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("run.json");
        if !path.is_file() {
            let message = format!("{} is not a run directory: it has no run.json", folder.shown());
            let hint = "give the folder that `vitadapt finetune` printed, such as runs/quickstart";
            return Err(Error::usage_hint(message, hint));
        }
        let value: Value = read_json(&path)?;
        let version = value["version"].as_str().unwrap_or("of an unknown version").to_owned();
        let record = serde_json::from_value::<Self>(value).map_err(|error| error.to_string());
        record.and_then(|record| record.problem().map_or(Ok(record), Err)).map_err(|reason| {
            let hint = (version != env!("CARGO_PKG_VERSION"))
                .then(|| format!("it was made by vitadapt {version}, this is {}", env!("CARGO_PKG_VERSION")));
            WeightsError::Invalid { path, reason: format!("not a record of a run ({reason})"), hint }.into()
        })
    }

    /// What no run has written, before anything is computed or allocated from it.
    fn problem(&self) -> Option<String> {
        let Geometry { image_size, crop_pct, .. } = self.preprocess.geometry;
        let mut names: Vec<&String> = self.classes.iter().collect();
        names.sort();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        let unusable = |value: f64| !(value.is_finite() && value > 0.0);
        let std = match self.preprocess.normalization {
            Normalization::PerChannel { std, .. } => std.into_iter().find(|&value| unusable(f64::from(value))),
            Normalization::Batch => None,
        };
        let tiles = self.preprocess.tiles.filter(|tiles| tiles.side == 0 || tiles.overlap > tiles.most_overlap());
        if let Some(tiles) = tiles {
            Some(format!("tiles of {} pixels that overlap by {}", tiles.side, tiles.overlap))
        } else if self.preprocess.tiles.is_some() && image_size.side().is_none() {
            Some(format!("tiles for an input of {image_size} pixels"))
        } else if image_size.sides().iter().any(|side| !(1..=LARGEST_SIDE).contains(side)) {
            Some(format!("image_size {image_size} is not between 1 and {LARGEST_SIDE}"))
        } else if unusable(crop_pct) || crop_pct > 1.0 {
            Some(format!("crop_pct {crop_pct} is not above 0 and at most 1"))
        } else if let Some(std) = std {
            Some(format!("a standard deviation of {std}"))
        } else if let Some(temperature) = self.temperature.filter(|&temperature| unusable(temperature)) {
            Some(format!("temperature {temperature} is not above 0"))
        } else if self.classes.is_empty() {
            Some("no classes".into())
        } else if let Some([class, _]) = twice {
            Some(format!("the class {class:?} twice"))
        } else if let Some(probe) = self.probe.as_ref().filter(|probe| unusable(probe.chosen)) {
            Some(format!("a probe with the setting {}", probe.chosen))
        } else {
            let blocks = self.readout().blocks;
            (!(1..=LARGEST_SIDE).contains(&blocks)).then(|| format!("features of {blocks} blocks"))
        }
    }

    /// Refuses to continue a run whose strategy, data, classes or backbone have changed, listing every difference.
    ///
    /// # Errors
    /// A usage error.
    pub fn check_same(&self, now: &Self) -> Result<()> {
        let mut differences = Vec::new();
        // A probe and a training may have the same settings and name.
        if self.strategy != now.strategy {
            differences.push(format!("strategy: {} then, {} now", self.strategy, now.strategy));
        }
        if self.classes != now.classes {
            differences.push(format!("classes: {} then, {} now", self.classes.join(", "), now.classes.join(", ")));
        }
        if self.data != now.data {
            let describe = |data: &DataRecord| {
                let DataRecord { sha256, train, val, test } = data;
                format!("{train}/{val}/{test} images ({}…)", &sha256[..12.min(sha256.len())])
            };
            differences.push(format!("data: {} then, {} now", describe(&self.data), describe(&now.data)));
        }
        if self.backbone.sha256 != now.backbone.sha256 {
            differences.push(format!("backbone: {} then, {} now", self.backbone.name, now.backbone.name));
        }
        if self.preprocess != now.preprocess {
            differences.push("preprocessing: its statistics have changed".into());
        }
        refuse(&differences)
    }
}

/// A usage error that lists why a run cannot be continued; nothing when there is no difference.
///
/// # Errors
/// When there are differences.
pub fn refuse(differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!("the run cannot be resumed, it has changed:\n  {}", differences.join("\n  "));
    Err(Error::usage_hint(message, "undo the change, or start anew without --resume (the old run is set aside)"))
}

/// A run that cannot be scored because it never finished an epoch.
pub fn no_checkpoint(folder: &Path) -> Error {
    DataError::invalid(
        format!("{} has no finished epoch yet", folder.shown()),
        "continue it with `vitadapt finetune --resume`",
    )
    .into()
}

/// The settings that differ between a saved run and now, without those that cannot change its result: name, folder and
/// machine.
pub fn changes(saved: &Settings, now: &Settings) -> Vec<String> {
    let [then, today] = [saved, now].map(|settings| BTreeMap::from_iter(flatten(settings)));
    let lookup = |rows: &BTreeMap<String, String>, key: &str| rows.get(key).cloned().unwrap_or("absent".into());
    let keys: BTreeSet<&String> = then.keys().chain(today.keys()).collect();
    keys.into_iter()
        .filter(|key| !key.starts_with("run.") || matches!(key.as_str(), "run.seed" | "run.precision"))
        .filter(|key| !matches!(key.as_str(), "cache.dir" | "cache.max_bytes"))
        .filter(|key| !key.starts_with("tsne.") && !key.starts_with("report.") && !key.starts_with("train.checkpoint_"))
        .map(|key| (key, lookup(&then, key), lookup(&today, key)))
        .filter(|(_, then, today)| then != today)
        .map(|(key, then, today)| format!("{key}: {then} then, {today} now"))
        .collect()
}

/// Dotted keys with their values.
pub(super) fn flatten(settings: &Settings) -> Vec<(String, String)> {
    fn below(key: &str, value: &Value) -> Vec<(String, String)> {
        let Some(fields) = value.as_object() else { return vec![(key.to_owned(), value.to_string())] };
        let key = if key.is_empty() { String::new() } else { format!("{key}.") };
        fields.iter().flat_map(|(name, value)| below(&format!("{key}{name}"), value)).collect()
    }
    below("", &serde_json::json!(settings))
}
