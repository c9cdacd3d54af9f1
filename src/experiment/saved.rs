//! A finished run, opened again with its best weights.

use super::images::usable_images;
use super::reference;
use super::session::{Session, load_saved};
use crate::backbone::{Readout, Segment};
use crate::config::{self, DataSettings, Settings, StrategySettings};
use crate::data::audit::Examination;
use crate::data::kinds::Watch;
use crate::data::transform::Pipeline;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::features::{Images, ReferenceRecord, ReferenceSet, image_key};
use crate::hub::Wanted;
use crate::model::{BatchSource, CosineHead, Model};
use crate::report::{Console, RunRecord, Status, no_checkpoint};
use crate::strategy::Plan;
use crate::system::digest::hex;
use crate::system::shown::Shown;
use crate::train::checkpoint::Checkpoints;
use crate::train::progress::Progress;
use candle_core::Tensor;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run and its model.
pub struct SavedRun {
    /// Its directory.
    pub folder: PathBuf,
    /// Its `run.json`.
    pub record: RunRecord,
    /// Its settings on a device.
    pub session: Session,
    /// Its best model.
    pub model: Model,
    /// Content address of the model's backbone.
    pub weights: String,
}

impl SavedRun {
    /// Opens the run in `folder` with the weights of its best epoch, on `device` instead of the run's own if given. The
    /// model runs from `start` on, that of images which are cut into tiles from the features on. `sets` override settings
    /// that do not change the model.
    ///
    /// # Errors
    /// A usage error when this is not a run directory or the backbone is another one by now; a data error when no epoch
    /// was finished; weights errors.
    pub fn open(
        folder: &Path,
        device: Option<&str>,
        start: Segment,
        sets: &[String],
        console: &Console,
    ) -> Result<Self> {
        let record = RunRecord::read(folder)?;
        if record.status != Status::Done {
            console.warn(format!(
                "{} is not finished: this is its best epoch so far, without calibrated probabilities, thresholds and known \
                 images; finish it with `vitadapt finetune --resume`",
                folder.shown()
            ));
        }
        let start = if record.preprocess.tiles.is_some() { Segment::Head } else { start };
        let mut settings = config::load(Some(&folder.join("config.toml")), sets)?;
        if let Some(device) = device {
            settings.run.device =
                device.parse().map_err(|expected: &str| Error::usage_hint(format!("--device {device}"), expected))?;
        }
        let saved = Checkpoints::of_run(folder).load::<Progress>("best")?.ok_or_else(|| no_checkpoint(folder))?;
        if only_head(&record, &settings) {
            settings.strategy = StrategySettings::Frozen;
        }
        let mut session = Session::open(settings, Wanted::Backbone, console)?;
        if session.backbone.sha256 != record.backbone.sha256 {
            return Err(Error::usage_hint(
                format!("the weights of {} are not those that the run was trained with", record.backbone.name),
                format!("their SHA-256 must be {}", record.backbone.sha256),
            ));
        }
        let head = session.head(record.head(), record.readout(), record.classes.len())?;
        // What is remembered of images is not trainable, so it is not part of any plan.
        let remembers = head.kind.remembers();
        let voters = saved.params.iter().filter(|(name, _)| remembers || CosineHead::is_cached(name));
        for (name, tensor) in voters {
            session.backbone.params.insert(name, tensor.to_device(&session.device)?);
        }
        let model = session.model(start, &head, None)?;
        load_saved(&model.params, &saved.params, folder)?;
        let model = model.merged()?;
        let weights = weights(&record, &head.plan, &saved.params)?;
        Ok(Self { folder: folder.to_path_buf(), record, session, model, weights })
    }

    /// The features that its head reads.
    pub fn readout(&self) -> Readout {
        self.record.readout()
    }

    /// The run's own images in their splits.
    ///
    /// # Errors
    /// Data errors when they are gone.
    pub fn dataset(&self) -> Result<Dataset> {
        let data = &self.session.settings.data;
        Dataset::from_splits_csv(&self.folder.join("splits.csv"), data, self.record.labels(), false)
    }

    /// The same from their list, where the images themselves may be gone.
    ///
    /// # Errors
    /// A data error when the list cannot be read.
    pub fn listed(&self) -> Result<Dataset> {
        let data = &self.session.settings.data;
        Dataset::from_splits_csv(&self.folder.join("splits.csv"), data, self.record.labels(), true)
    }

    /// The same on their way to the backbone.
    ///
    /// # Errors
    /// Data errors when they are gone or cannot be read.
    pub fn images(&self) -> Result<Images> {
        let dataset = Arc::new(self.dataset()?);
        let paths: Vec<&Path> = dataset.samples.iter().map(|sample| sample.path.as_path()).collect();
        let keys = self.session.workers.map_on_cpu(paths, image_key).into_iter().collect::<Result<_>>()?;
        Ok(self.session.images(&dataset, &Arc::new(keys), &Arc::new(self.pipeline())))
    }

    /// Its reference set; none when it has none, as runs of older versions.
    ///
    /// # Errors
    /// When their file is gone, or not as the run left it.
    pub fn reference_set(&self) -> Result<Option<(ReferenceSet, ReferenceRecord)>> {
        let Some(record) = &self.record.reference else { return Ok(None) };
        let width = self.readout().width(&self.session.backbone.spec);
        let references = ReferenceSet::read(&self.folder.join(reference::FILE), &record.sha256, width)?;
        Ok(Some((references, record.clone())))
    }

    /// The usable images of another folder of class folders or of a manifest, all of them as test images; where it names
    /// splits, those of `part` (none: test). The manifest's paths may lead out of its folder if that is `allowed`, or was for
    /// the run's own.
    ///
    /// # Errors
    /// Data errors that name what is wrong with them.
    pub fn other_samples(
        &self,
        source: &Path,
        part: Option<Split>,
        allowed: bool,
        console: &Console,
    ) -> Result<Examination> {
        let Settings { data, .. } = &self.session.settings;
        let data = DataSettings { allow_outside: allowed || data.allow_outside, ..data.clone() };
        let (classes, labels) = (&self.record.classes, self.record.labels());
        let dataset = Dataset::of_classes(source, classes, labels, &data, (part, Split::Test))?;
        dataset.warnings.iter().for_each(|warning| console.warn(warning));
        dataset.notes.iter().for_each(|note| console.info(note));
        usable_images(&self.session.settings, &self.record.preprocess, &dataset, console)
    }

    /// The run's own images, among which there are some of a split.
    ///
    /// # Errors
    /// Data errors when they are gone; a usage error when the split has no images.
    pub fn own_samples(&self, split: Split) -> Result<Dataset> {
        let dataset = self.dataset()?;
        if dataset.indices(split).is_empty() {
            let message = format!("the run has no {} images", split.name());
            return Err(Error::usage_hint(message, "choose another --split, or give a folder with --data"));
        }
        Ok(dataset)
    }

    /// A data set on its way to scoring, where each image is held against those of training if there is a watch.
    pub fn watched_source(&self, dataset: Dataset, watch: Option<Arc<Watch>>) -> BatchSource {
        let pipeline = Arc::new(self.pipeline().watched(watch));
        let (batch_size, threads) = (self.session.settings.train.batch_size, self.session.decode_threads());
        BatchSource::for_scoring(Arc::new(dataset), pipeline, batch_size, threads)
    }

    /// Knows what kind of images it was trained on; none for runs of older versions.
    pub fn watch(&self) -> Option<Arc<Watch>> {
        self.record.images.map(|kinds| Arc::new(Watch::new(kinds)))
    }

    /// From file to pixels as in training, without randomness.
    pub fn pipeline(&self) -> Pipeline {
        Pipeline::evaluation(self.record.preprocess, self.session.decode())
    }
}

/// Refuses a run whose head reads patches where the features of whole images are wanted.
///
/// # Errors
/// A usage error.
pub fn refuse_patches(record: &RunRecord) -> Result<()> {
    match record.sound_class() {
        None => Ok(()),
        Some(_) => Err(Error::usage_hint(
            "the run is a patchcore, whose head compares patches: it reads no features of whole images",
            "give the configuration instead of the run for the features of its backbone; eval, predict and report work with \
             the run",
        )),
    }
}

/// Whether all that was saved is a head on the pretrained backbone: a probe's, whatever the config says about fine-tuning,
/// and the directions that came from learnt words.
fn only_head(record: &RunRecord, settings: &Settings) -> bool {
    record.probe.is_some() || settings.strategy.may_learn_words()
}

/// The pretrained weights' own address when the backbone was frozen, else one of both.
fn weights(record: &RunRecord, plan: &Plan, trained: &BTreeMap<String, Tensor>) -> Result<String> {
    if matches!(plan.lowest, Segment::Head) {
        return Ok(record.backbone.sha256.clone());
    }
    let mut sum = Sha256::new_with_prefix(&record.backbone.sha256);
    for (name, tensor) in trained {
        sum.update(name);
        sum.update(bytemuck::cast_slice::<f32, u8>(&tensor.flatten_all()?.to_vec1::<f32>()?));
    }
    Ok(hex(&sum.finalize()))
}
