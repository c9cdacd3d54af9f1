//! A backbone on a device, and the model that is built from it.

use super::head::{HeadPlan, PROJECTION, visual_prompts};
use super::{device, weights};
use crate::backbone::{Activations, Backbone, Params, Readout, Segment};
use crate::cache::{Cache, Key};
use crate::config::{PoolChoice, RunSettings, Settings};
use crate::data::Dataset;
use crate::data::decode::DecodeOptions;
use crate::data::transform::{Pipeline, Preprocess};
use crate::error::{Error, Result, WeightsError};
use crate::features::{Extractor, Identity, Images};
use crate::hub::Wanted;
use crate::model::{HeadKind, Model, ModelSpec, products_in, scoring_products};
use crate::nn::workers::Workers;
use crate::report::{BackboneRecord, Console};
use crate::text::ContextPrompts;
use crate::train::trainer::Computation;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A backbone on a device, before there is a head.
pub struct Session {
    /// The settings of the run.
    pub settings: Settings,
    /// Where tensors live.
    pub device: Device,
    /// Threads for compute.
    pub workers: Workers,
    /// The pretrained weights.
    pub backbone: Backbone,
    /// Where they were loaded from: a folder on this machine, or `builtin:NAME`.
    pub location: String,
}

impl Session {
    /// Opens the device and loads the backbone, from the hub if need be, with what else is wanted of the model at
    /// [`Session::location`].
    ///
    /// # Errors
    /// Usage errors of the device and the image size, weights errors, errors of the hub.
    pub fn open(settings: Settings, wanted: Wanted, console: &Console) -> Result<Self> {
        check_threads(&settings.run)?;
        let device = device::open(settings.run.device)?;
        let location = weights::local(&settings.model.backbone, wanted, console)?.into_owned();
        let mut backbone = Backbone::load(&location, &settings.model)?;
        backbone = backbone.with_pool(settings.model.pool, settings.model.pool_block, settings.run.seed)?;
        if settings.preprocess.tiles.is_some() {
            backbone = backbone.with_tile_pool(settings.model.tile_pool, settings.run.seed)?;
        }
        backbone.notes.iter().for_each(|note| console.info(note));
        backbone.params = std::mem::take(&mut backbone.params).to_device(&device)?;
        let workers = Workers::new(settings.run.threads, &device)?;
        Ok(Self { settings, device, workers, backbone, location })
    }

    /// Pools by another choice from now on, as if it had been the setting.
    ///
    /// # Errors
    /// As [`Backbone::with_pool`].
    pub fn set_pool(&mut self, choice: PoolChoice) -> Result<()> {
        let (block, seed) = (self.settings.model.pool_block, self.settings.run.seed);
        self.backbone = self.backbone.clone().with_pool(choice, block, seed)?;
        self.settings.model.pool = choice;
        Ok(())
    }

    /// A head of that kind from the features of `readout` to `classes`.
    ///
    /// # Errors
    /// As [`HeadPlan::new`].
    pub fn head(&self, kind: HeadKind, readout: Readout, classes: usize) -> Result<HeadPlan> {
        HeadPlan::new(&self.settings, (&self.backbone.spec, &self.backbone.outputs), (kind, readout, classes), None)
    }

    /// The model with a fresh head, or with one that follows from learnt `words`, from `start` on. It takes the
    /// backbone's parameters, so that they are held once.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn model(&mut self, start: Segment, head: &HeadPlan, words: Option<ContextPrompts>) -> Result<Model> {
        let &HeadPlan { kind, readout, classes, width, ref plan, .. } = head;
        let mut params = std::mem::take(&mut self.backbone.params);
        let seed = self.settings.run.seed;
        if let Some(visual) = visual_prompts(&self.settings) {
            visual.insert(&self.backbone.spec, &mut params, seed)?;
        }
        let fresh = kind.fresh(width, classes, seed, &self.device)?;
        params.extend(if kind == HeadKind::Cosine { self.cosine_params(&fresh)? } else { fresh });
        if let Some(lora) = &plan.lora {
            lora.insert(&mut params, seed)?;
        }
        let params = params.train_where(|name| plan.get(name).is_some())?;
        let (vit, lora) = (self.backbone.spec.clone(), plan.lora.clone());
        let spec = ModelSpec { vit, lora, start, readout, head: kind, classes };
        let (workers, device) = (self.workers.clone(), self.device.clone());
        let model = match words {
            Some(words) => Model::prompted(words, spec, params, workers, device)?,
            None => Model::new(spec, params, workers, device)?,
        };
        Ok(model.scored_in(self.settings.run.precision))
    }

    /// The parameters of a cosine head on pooled features, with the backbone's projection to embeddings if it has one.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn cosine_params(&self, head: &Params) -> Result<Params> {
        let mut params = head.clone();
        for name in PROJECTION {
            if let Some(projection) = self.backbone.outputs.get(name) {
                params.insert(name, projection.to_device(&self.device)?);
            }
        }
        Ok(params)
    }

    /// The pretrained parameters, before a model has taken them, and their content address.
    pub fn pretrained(&self) -> (&Params, &str) {
        (&self.backbone.params, &self.backbone.sha256)
    }

    /// The layers up to the `wanted` activations over `params`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn extractor(&self, params: &Params, wanted: Activations) -> Result<Extractor> {
        let params = products_in(params, scoring_products(self.settings.run.precision, &self.device))?;
        Ok(Extractor::new(&self.backbone.spec, &params, wanted, self.workers.clone(), &self.device)?)
    }

    /// What features of this backbone depend on.
    pub fn identity<'a>(&'a self, activations: Activations, preprocess: &'a Preprocess) -> Identity<'a> {
        let Settings { data, run, .. } = &self.settings;
        let device = (&self.device, scoring_products(run.precision, &self.device));
        Identity::new(&self.backbone, activations, preprocess, (data.bit_depth, run.seed), device)
    }

    /// The cache of the settings.
    pub fn cache(&self) -> Cache {
        Cache::new(&self.settings.cache)
    }

    /// The images of a data set on their way through `pipeline`.
    pub fn images(&self, dataset: &Arc<Dataset>, keys: &Arc<Vec<Key>>, pipeline: &Arc<Pipeline>) -> Images {
        Images {
            dataset: Arc::clone(dataset),
            pipeline: Arc::clone(pipeline),
            keys: Arc::clone(keys),
            batch_size: self.settings.train.batch_size,
            threads: self.decode_threads(),
        }
    }

    /// How images are decoded.
    pub fn decode(&self) -> DecodeOptions {
        DecodeOptions { bit_depth: self.settings.data.bit_depth }
    }

    /// Threads that decode images.
    pub fn decode_threads(&self) -> usize {
        decode_threads(&self.settings)
    }

    /// Which weights these are.
    pub fn backbone_record(&self) -> BackboneRecord {
        BackboneRecord {
            name: self.settings.model.backbone.clone(),
            family: self.backbone.family.to_owned(),
            architecture: self.backbone.spec.architecture.clone(),
            sha256: self.backbone.sha256.clone(),
        }
    }
}

/// Threads that decode images: those of the settings, or one a core.
pub fn decode_threads(settings: &Settings) -> usize {
    match settings.run.decode_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// How the settings want gradients to be computed.
pub fn computation(settings: &Settings) -> Computation {
    Computation { precision: settings.run.precision, checkpoint_blocks: settings.train.checkpoint_blocks }
}

/// Copies saved parameters into the trainable ones of a model.
///
/// # Errors
/// A weights error that lists every parameter that is missing or has another shape.
pub fn load_saved(params: &Params, saved: &BTreeMap<String, Tensor>, from: &Path) -> Result<()> {
    let problems: Vec<String> = params
        .trained()
        .filter_map(|(name, var)| match saved.get(name) {
            None => Some(format!("missing: {name} {:?}", var.dims())),
            Some(tensor) if tensor.dims() != var.dims() => {
                Some(format!("wrong shape: {name} is {:?}, expected {:?}", tensor.dims(), var.dims()))
            }
            Some(_) => None,
        })
        .collect();
    if !problems.is_empty() {
        let family = "run's".into();
        return Err(WeightsError::Mismatch { path: from.to_path_buf(), family, problems }.into());
    }
    Ok(params.assign(|name, _| Ok(saved.get(name).cloned()))?)
}

/// Refuses far more threads than cores: they would only take memory and each other's time. A few times as many are
/// allowed, since a run repeats its bits on another machine only with the threads that it had.
fn check_threads(run: &RunSettings) -> Result<()> {
    const MOST_EACH: usize = 8;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (key, threads) in [("run.threads", run.threads), ("run.decode_threads", run.decode_threads)] {
        if threads > MOST_EACH * cores {
            let message = format!("{key} = {threads}, but this machine has {cores} cores");
            let hint = format!("at most {} are allowed here; 0 is one for each core", MOST_EACH * cores);
            return Err(Error::usage_hint(message, hint));
        }
    }
    Ok(())
}
