//! What the commands share: from settings and classes to a model on a device.

use super::{device, weights};
use crate::backbone::{Backbone, Params, Readout, Shapes, Stage};
use crate::cache::{Cache, Key};
use crate::config::{PromptModality, Settings, StrategySettings, VisualPromptSettings};
use crate::data::Dataset;
use crate::data::decode::DecodeOptions;
use crate::data::transform::{Pipeline, Preprocess};
use crate::error::{Result, WeightsError};
use crate::features::{Extractor, Identity, Images};
use crate::hub::Wanted;
use crate::model::{CONTEXT, HeadKind, Model, ModelSpec};
use crate::nn::workers::Workers;
use crate::report::{BackboneRecord, Console};
use crate::strategy::Plan;
use crate::text::ContextPrompts;
use crate::train::trainer::Computation;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The map from features to the space of texts, among [`Backbone::outputs`].
const PROJECTION: &str = "projection.weight";

/// What a model is besides its backbone.
#[derive(Debug, Clone, Copy)]
pub struct ModelShape {
    /// What its inputs are.
    pub stage: Stage,
    /// Which features feed the head.
    pub readout: Readout,
    /// How the head makes logits of them.
    pub head: HeadKind,
    /// Classes of the head.
    pub classes: usize,
}

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
    /// Opens the device and loads the backbone, from the hub if need be.
    ///
    /// # Errors
    /// Usage errors of the device and the image size, weights errors, errors of the hub.
    pub fn open(settings: Settings, console: &Console) -> Result<Self> {
        Self::open_with(settings, Wanted::Backbone, console)
    }

    /// The same, with more files of the model at [`Session::location`] than the backbone's.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_with(settings: Settings, wanted: Wanted, console: &Console) -> Result<Self> {
        let device = device::open(settings.run.device)?;
        let location = weights::local(&settings.model.backbone, wanted, console)?.into_owned();
        let mut backbone = Backbone::load(&location, settings.model.image_size)?.with_pool(settings.model.pool)?;
        backbone.params = std::mem::take(&mut backbone.params).to_device(&device)?;
        let workers = Workers::new(settings.run.threads, &device)?;
        Ok(Self { settings, device, workers, backbone, location })
    }

    /// Which parameters are trainable, with a head of that kind from the features of `readout` to `classes`.
    ///
    /// # Errors
    /// A usage error when the strategy does not fit the backbone.
    pub fn plan(&self, head: HeadKind, readout: Readout, classes: usize) -> Result<Plan> {
        plan_over(&self.settings, self.backbone.spec.depth, &self.shapes(head, readout, classes))
    }

    /// The same for a cosine head whose directions follow from learnt words.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub fn plan_prompted(&self, prompts: &ContextPrompts) -> Result<Plan> {
        let mut shapes = self.shapes(HeadKind::Cosine, Readout::POOL, prompts.classes());
        shapes.insert(CONTEXT.to_owned(), prompts.start().dims().to_vec());
        plan_over(&self.settings, self.backbone.spec.depth, &shapes)
    }

    fn shapes(&self, head: HeadKind, readout: Readout, classes: usize) -> Shapes {
        let spec = &self.backbone.spec;
        let mut shapes = spec.shapes();
        shapes.extend(head.shapes(self.head_width(head, readout), classes));
        if let Some(visual) = visual_prompts(&self.settings) {
            shapes.extend(visual.shapes(spec));
        }
        if let (HeadKind::Cosine, Some(projection)) = (head, self.backbone.outputs.get(PROJECTION)) {
            shapes.insert(PROJECTION.into(), projection.dims().to_vec());
        }
        shapes
    }

    /// Values that a head takes of an image: its features, or their embedding.
    fn head_width(&self, head: HeadKind, readout: Readout) -> usize {
        if head == HeadKind::Cosine { self.backbone.embedding() } else { readout.width(&self.backbone.spec) }
    }

    /// The model with a fresh head, or with one that follows from learnt `words`. It takes the backbone's parameters, so
    /// that they are held once.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn model(&mut self, shape: ModelShape, plan: &Plan, words: Option<ContextPrompts>) -> Result<Model> {
        let ModelShape { stage, readout, head, classes } = shape;
        let mut params = std::mem::take(&mut self.backbone.params);
        let seed = self.settings.run.seed;
        if let Some(visual) = visual_prompts(&self.settings) {
            visual.insert(&self.backbone.spec, &mut params, seed)?;
        }
        let fresh = head.fresh(self.head_width(head, readout), classes, seed, &self.device)?;
        params.extend(if head == HeadKind::Cosine { self.cosine_params(&fresh)? } else { fresh });
        if let Some(lora) = &plan.lora {
            lora.insert(&mut params, seed)?;
        }
        let params = params.train_where(|name| plan.get(name).is_some())?;
        let (vit, lora) = (self.backbone.spec.clone(), plan.lora.clone());
        let spec = ModelSpec { vit, lora, stage, readout, head, classes };
        let (workers, device) = (self.workers.clone(), self.device.clone());
        Ok(match words {
            Some(words) => Model::prompted(words, spec, params, workers, device)?,
            None => Model::new(spec, params, workers, device)?,
        })
    }

    /// The parameters of a cosine head on pooled features, with the backbone's projection to embeddings if it has one.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn cosine_params(&self, head: &Params) -> Result<Params> {
        let mut params = head.clone();
        if let Some(projection) = self.backbone.outputs.get(PROJECTION) {
            params.insert(PROJECTION, projection.to_device(&self.device)?);
        }
        Ok(params)
    }

    /// The layers up to `stage` over `params`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn extractor(&self, params: &Params, stage: Stage) -> Result<Extractor> {
        Ok(Extractor::new(&self.backbone.spec, params, stage, self.workers.clone(), &self.device)?)
    }

    /// What features of this backbone depend on.
    pub fn identity<'a>(&'a self, stage: Stage, preprocess: &'a Preprocess) -> Identity<'a> {
        Identity::new(&self.backbone, stage, preprocess, self.settings.data.bit_depth, &self.device)
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

/// Which of the parameters of these shapes learn under the settings, in a backbone of `depth` blocks.
///
/// # Errors
/// A usage error when the strategy does not fit the backbone.
pub fn plan_over(settings: &Settings, depth: usize, shapes: &Shapes) -> Result<Plan> {
    let shapes = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    let plan = Plan::new(&settings.strategy, settings.train.layer_decay, depth, shapes)?;
    Ok(plan.unfreezing(settings.unfreeze))
}

/// The prompts that the strategy adds to the image tower.
pub fn visual_prompts(settings: &Settings) -> Option<VisualPromptSettings> {
    match &settings.strategy {
        StrategySettings::Prompt(prompt) if prompt.modality == PromptModality::Visual => Some(prompt.visual),
        _ => None,
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
