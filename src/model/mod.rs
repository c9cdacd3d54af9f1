//! A model as it scores: a backbone with a classification head on a device, and the images that it is run on. What trains
//! one is in `train`, over the same parameters.

mod classifier;
mod cosine;
mod directions;
mod head;
mod patches;
mod source;
mod vote;

pub use classifier::{Classifier, DropRates};
pub use cosine::CosineHead;
pub use directions::{CONTEXT, Directions, DirectionsGraph};
pub use head::HeadKind;
pub use patches::{PatchHead, ScoreRule};
pub use source::{BatchSource, Batches, FrozenInputs, FrozenRows, Scored};
pub use vote::VoteHead;

use crate::backbone::{Activations, Layer, Lora, Params, Readout, Role, Segment, VitSpec};
use crate::config::Precision;
use crate::data::loader::Batch;
use crate::data::transform::Bag;
use crate::data::upload::Sent;
use crate::features::{Extractor, TiledImages};
use crate::nn::Mode;
use crate::nn::workers::Workers;
use crate::text::ContextPrompts;
use candle_core::{DType, Device, Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// What a model is made of besides its parameters.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The backbone.
    pub vit: VitSpec,
    /// The adapters beside the backbone's own parameters.
    pub lora: Option<Lora>,
    /// The first segment that it runs. The inputs are what that reads: pixels, or what frozen layers have made of them.
    pub start: Segment,
    /// Which features feed the head.
    pub readout: Readout,
    /// How the head makes logits of them.
    pub head: HeadKind,
    /// Classes of the head.
    pub classes: usize,
}

/// Parameters on a device, the layers over them, and the workers that run these.
pub struct Model {
    /// All parameters; an optimiser writes to the trainable ones, and the model sees it.
    pub params: Params,
    /// The workers.
    pub workers: Workers,
    spec: ModelSpec,
    device: Device,
    /// The layers without a graph.
    layers: Classifier,
    /// The type of its products where that is not the parameters' own.
    products: Option<DType>,
    /// Set when the head follows from learnt words.
    directions: Option<Directions>,
}

/// What a model makes of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// The features that the head reads, row-major (n, d).
    pub features: Vec<f32>,
    /// Row-major (n, classes).
    pub logits: Vec<f32>,
}

impl Model {
    /// Builds the layers over `params`, which must lie on `device`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(spec: ModelSpec, params: Params, workers: Workers, device: Device) -> Result<Self> {
        let layers = Classifier::new(&spec, &params.detached(), DropRates::default(), 0)?;
        Ok(Self { params, workers, spec, device, layers, products: None, directions: None })
    }

    /// The same with products in the type of `precision` where [`scoring_products`] says so.
    #[must_use]
    pub fn scored_in(self, precision: Precision) -> Self {
        let products = scoring_products(precision, &self.device);
        Self { products, ..self }
    }

    /// A model with a cosine head whose directions follow from learnt words. These are trainable, and nothing else is.
    ///
    /// # Errors
    /// When a parameter is absent, or the device is out of memory.
    pub fn prompted(
        prompts: ContextPrompts,
        spec: ModelSpec,
        mut params: Params,
        workers: Workers,
        device: Device,
    ) -> Result<Self> {
        let directions = Directions::new(prompts, &mut params, &workers)?;
        Ok(Self { directions: Some(directions), ..Self::new(spec, params, workers, device)? })
    }

    /// What it is made of besides its parameters.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The learnt words that its head follows from, if it does.
    pub fn directions(&self) -> Option<&Directions> {
        self.directions.as_ref()
    }

    /// Number of trainable values and of all values, those of a text tower among them.
    pub fn counts(&self) -> (usize, usize) {
        let (trainable, all) = self.params.counts();
        (trainable, all + self.directions().map_or(0, |directions| directions.prompts().spec.parameters()))
    }

    /// The same model as it is scored and exported: its adapters folded into the weights that they adapt, which changes it
    /// by rounding; the directions of learnt words in their place, without the text tower.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn merged(&self) -> Result<Self> {
        let params = match (&self.spec.lora, &self.directions) {
            (Some(lora), _) => lora.merged(&self.params)?,
            (None, Some(_)) => self.saved()?.detached(),
            (None, None) => self.params.clone(),
        };
        let spec = ModelSpec { lora: None, ..self.spec.clone() };
        let merged = Self::new(spec, params, self.workers.clone(), self.device.clone())?;
        Ok(Self { products: self.products, ..merged })
    }

    /// What a checkpoint holds, as trainable parameters: those that are, and where the head follows from learnt words, the
    /// head too, so that a saved model needs no text tower.
    ///
    /// # Errors
    /// When the device fails.
    pub fn saved(&self) -> Result<Params> {
        let Some(directions) = &self.directions else { return Ok(self.params.clone()) };
        directions.refresh(&self.params, &self.workers)?;
        self.params.clone().train_where(|name| matches!(Role::of(name), Some(Role::Context | Role::Head)))
    }

    /// The weights (C, w) of its head, where that is an affine map.
    pub fn linear_head(&self) -> Option<Tensor> {
        let weights = || self.params.get(Layer::Head.weight()).map(|weights| weights.detach());
        (self.spec.head == HeadKind::Linear).then(weights).flatten()
    }

    /// What its head compares patches with, where it does.
    pub fn patch_head(&self) -> Option<Arc<PatchHead>> {
        self.layers.patch_head()
    }

    /// What is taken out of its backbone for its head.
    pub fn read(&self) -> Activations {
        match self.spec.head {
            HeadKind::Patches(patches) => Activations::Patches(patches),
            _ => Activations::Features(self.spec.readout),
        }
    }

    /// What its head reads of an image that is cut into tiles, from [`Model::read`] of these: the pooled features, or the
    /// patch that is farthest from those of sound parts, which has the image's score.
    ///
    /// # Errors
    /// When the device fails.
    pub fn row_of(&self, images: &TiledImages<'_>, bag: &Bag) -> crate::error::Result<Vec<f32>> {
        match self.patch_head() {
            Some(head) => Ok(head.compare_bag(images, bag)?.1),
            None => Ok(images.pooled(bag)?),
        }
    }

    /// The features and the logits of a batch, without randomness or graph.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&self, batch: &Batch) -> Result<Outputs> {
        self.run_on(batch.labels.len(), |shard| self.inputs(batch, shard))
    }

    /// The same of a batch that may be on the device already.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run_sent(&self, sent: &Sent) -> Result<Outputs> {
        self.run_on(sent.batch.labels.len(), |shard| sent.tensor(shard, &self.input_shape(), &self.device))
    }

    fn run_on(&self, images: usize, inputs: impl Fn(Range<usize>) -> Result<Tensor> + Sync) -> Result<Outputs> {
        let layers = self.scoring_layers()?;
        let found = self.workers.map(self.workers.scoring_shards(images), |shard| {
            let features = layers.features(&inputs(shard)?, Mode::Eval)?;
            Ok((values(&features)?, values(&layers.classify(&features, Mode::Eval)?)?))
        })?;
        let (features, logits): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        Ok(Outputs { features: features.concat(), logits: logits.concat() })
    }

    /// The logits of features (n, d) that the head reads, beside them.
    ///
    /// # Errors
    /// When the device fails.
    pub fn classify(&self, features: &[f32], n: usize) -> Result<Outputs> {
        let (layers, width) = (self.scoring_layers()?, features.len() / n.max(1));
        let logits = self.workers.map(self.workers.scoring_shards(n), |shard| {
            let rows = &features[shard.start * width..shard.end * width];
            let features = Tensor::from_slice(rows, (shard.len(), width), &self.device)?;
            values(&layers.classify(&features, Mode::Eval)?)
        })?;
        Ok(Outputs { features: features.to_vec(), logits: logits.concat() })
    }

    /// The backbone's layers up to what is wanted.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn extractor(&self, wanted: Activations) -> Result<Extractor> {
        let params = products_in(&self.params, self.products)?;
        Extractor::new(&self.spec.vit, &params, wanted, self.workers.clone(), &self.device)
    }

    /// The layers without a graph, learnt words taken through the text tower; in half precision over the parameters as
    /// they are now.
    fn scoring_layers(&self) -> Result<Cow<'_, Classifier>> {
        if let Some(directions) = &self.directions {
            directions.refresh(&self.params, &self.workers)?;
        }
        if self.products.is_none() {
            return Ok(Cow::Borrowed(&self.layers));
        }
        let params = products_in(&self.params, self.products)?;
        Classifier::new(&self.spec, &params, DropRates::default(), 0).map(Cow::Owned)
    }

    /// The inputs of a shard of a batch on the device.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn inputs(&self, batch: &Batch, shard: Range<usize>) -> Result<Tensor> {
        batch.tensor(shard, &self.input_shape(), &self.device)
    }

    /// Shape of the input of an image.
    pub fn input_shape(&self) -> Vec<usize> {
        match (self.spec.head, self.spec.start) {
            // One patch of an image that is cut into tiles.
            (HeadKind::Patches(patches), Segment::Head) => vec![1, patches.width(&self.spec.vit)],
            (_, start) => start.input_shape(&self.spec.vit, self.spec.readout),
        }
    }
}

/// The type of products that are not in f32.
pub fn half(precision: Precision) -> Option<DType> {
    match precision {
        Precision::F32 => None,
        Precision::Bf16 => Some(DType::BF16),
        Precision::F16 => Some(DType::F16),
    }
}

/// The type of the products of features and scores where it is not f32: on a CPU half precision saves no time.
pub fn scoring_products(precision: Precision, device: &Device) -> Option<DType> {
    half(precision).filter(|_| !device.is_cpu())
}

/// The parameters without graphs, those of products in that type.
///
/// # Errors
/// When the device is out of memory.
pub fn products_in(params: &Params, products: Option<DType>) -> Result<Params> {
    let params = params.detached();
    match products {
        Some(products) => params.with_products_in(products),
        None => Ok(params),
    }
}

/// All values of a tensor, in f32.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
