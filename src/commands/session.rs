//! What `finetune` and `eval` share: from settings and classes to a model on a device.

use super::{device, weights};
use crate::backbone::Backbone;
use crate::config::Settings;
use crate::data::decode::DecodeOptions;
use crate::error::{Result, WeightsError};
use crate::report::{BackboneRecord, Console};
use crate::strategy::Plan;
use crate::train::classifier::{Regularisation, all_shapes, assemble};
use crate::train::trainer::Trainer;
use crate::train::workers::Workers;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// A backbone on a device, before there is a head.
pub struct Session {
    /// The settings of the run.
    pub settings: Settings,
    /// Where tensors live.
    pub device: Device,
    /// The pretrained weights.
    pub backbone: Backbone,
}

impl Session {
    /// Opens the device and loads the backbone, from the hub if need be.
    ///
    /// # Errors
    /// Usage errors of the device and the image size, weights errors, errors of the hub.
    pub fn open(settings: Settings, console: &Console) -> Result<Self> {
        let device = device::open(settings.run.device)?;
        let weights = weights::local(&settings.model.backbone, console)?;
        let backbone = Backbone::load(&weights, settings.model.image_size)?.with_pool(settings.model.pool)?;
        Ok(Self { settings, device, backbone })
    }

    /// Which parameters learn, for a head of `classes`.
    ///
    /// # Errors
    /// A usage error when the strategy does not fit the backbone.
    pub fn plan(&self, classes: usize) -> Result<Plan> {
        let spec = &self.backbone.spec;
        let shapes = all_shapes(spec, classes);
        let shapes = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
        Plan::new(&self.settings.strategy, self.settings.train.layer_decay, spec.depth, shapes)
    }

    /// The model with a fresh head for `classes`. It takes the backbone's parameters, so that they are held once.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn trainer(&mut self, classes: usize, plan: &Plan) -> Result<Trainer> {
        let backbone = std::mem::take(&mut self.backbone.params);
        let (width, seed) = (self.backbone.spec.width, self.settings.run.seed);
        let params = assemble(backbone, width, classes, seed, &self.device)?;
        let params = params.train_where(|name| plan.get(name).is_some())?;
        let model = &self.settings.model;
        let rates = Regularisation { drop_path: model.drop_path, head_dropout: model.head_dropout };
        let workers = Workers::new(self.settings.run.threads, &self.device)?;
        Ok(Trainer::new(&self.backbone.spec, params, plan, rates, workers, self.device.clone())?)
    }

    /// How images are decoded.
    pub fn decode(&self) -> DecodeOptions {
        DecodeOptions { bit_depth: self.settings.data.bit_depth }
    }

    /// Threads that decode images.
    pub fn decode_threads(&self) -> usize {
        match self.settings.run.decode_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
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

/// Copies saved learning parameters into a model.
///
/// # Errors
/// A weights error that lists every parameter that is missing or has another shape.
pub fn load_saved(trainer: &Trainer, saved: &BTreeMap<String, Tensor>, from: &Path) -> Result<()> {
    let problems: Vec<String> = trainer
        .params
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
    for (name, var) in trainer.params.trained() {
        if let Some(tensor) = saved.get(name) {
            var.set(&tensor.to_device(var.device())?)?;
        }
    }
    Ok(())
}
