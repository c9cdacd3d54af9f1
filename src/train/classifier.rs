//! A backbone with a classification head: what is trained, scored and saved.

use super::cosine::CosineHead;
use crate::backbone::{Layer, Params, PlainBlock, Readout, Segment, Stage, Vit, VitSpec};
use crate::kernels::widened;
use crate::linalg::Matrix;
use crate::nn::{Linear, Mode, dropout};
use crate::probe::{Knn, Samples, vote_logits};
use crate::rng::{Purpose, Stream};
use crate::strategy::{Plan, drop_path_rates};
use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Marks the head's dropout among the random masks; blocks use small numbers.
const HEAD: u64 = u64::MAX;

/// Rates of the random layers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Regularisation {
    /// Stochastic depth in the last block.
    pub drop_path: f64,
    /// Dropout on the features before the head.
    pub head_dropout: f64,
}

/// How a head makes logits of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// An affine map.
    #[default]
    Linear,
    /// Scaled cosines with one direction a class.
    Cosine,
}

/// What the classifier is made of besides its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Form {
    /// What its inputs are: pixels, or what frozen layers have made of them.
    pub stage: Stage,
    /// Which features feed the head.
    pub readout: Readout,
    /// How the head makes logits of them.
    pub head: HeadKind,
    /// Rates of the random layers.
    pub rates: Regularisation,
    /// Set when images vote instead of a head.
    pub knn: Option<Knn>,
}

impl From<Regularisation> for Form {
    /// From pixels to a head on the pooled features.
    fn from(rates: Regularisation) -> Self {
        Self { stage: Stage::Pixels, readout: Readout::POOL, head: HeadKind::Linear, rates, knn: None }
    }
}

/// Layers over shared parameters.
#[derive(Debug, Clone)]
pub struct Classifier {
    vit: Vit,
    stage: Stage,
    readout: Readout,
    head: Head,
    head_dropout: f64,
}

/// From features to logits.
#[derive(Debug, Clone)]
enum Head {
    Linear(Linear),
    Cosine(CosineHead),
    Vote(Arc<Voters>),
}

/// Images whose features and classes a kNN probe remembers.
#[derive(Debug)]
struct Voters {
    knn: Knn,
    features: Vec<f32>,
    labels: Vec<usize>,
    classes: Vec<String>,
}

impl Classifier {
    /// Builds the layers over `params`, in which `plan` says which blocks learn and which are adapted.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(spec: &VitSpec, params: &Params, plan: &Plan, form: Form) -> Result<Self> {
        let drop_path = drop_path_rates(form.rates.drop_path, spec.depth, plan.first_block);
        let vit = Vit::new(spec, params, &drop_path)?;
        Ok(Self {
            vit: match &plan.lora {
                Some(lora) => vit.adapted(lora, params)?,
                None => vit,
            },
            stage: form.stage,
            readout: form.readout,
            head: Head::new(params, form)?,
            head_dropout: form.rates.head_dropout,
        })
    }

    /// Inputs of its stage (B, …) to logits (B, classes).
    ///
    /// # Errors
    /// When the inputs do not have the shape of that stage.
    pub fn logits(&self, inputs: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.classify(&self.features(inputs, mode)?, mode)
    }

    /// Inputs of its stage (B, …) to the features that the head reads (B, d).
    ///
    /// # Errors
    /// When the inputs do not have the shape of that stage.
    pub fn features(&self, inputs: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.vit.run_from(self.stage, self.readout, inputs, mode)
    }

    /// The stretches whose runs, one after another, give the logits of the pooled features. The last one ends in logits.
    pub fn segments(&self) -> Vec<Segment> {
        self.vit.segments(self.stage)
    }

    /// One of [`Classifier::segments`], from what the one before it left.
    ///
    /// # Errors
    /// When `x` does not have the shape the stretch reads.
    pub fn run_segment(&self, segment: Segment, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let out = self.vit.run_segment(segment, x, mode)?;
        if segment == Segment::Pool { self.classify(&out, mode) } else { Ok(out) }
    }

    /// Whether its blocks run on plain values, without a graph.
    pub fn is_plain(&self) -> bool {
        self.vit.is_plain()
    }

    /// The block of a stretch, if it can run on plain values.
    ///
    /// # Errors
    /// When `x` has no tokens.
    pub fn plain_block(&self, segment: Segment, x: &Tensor) -> Result<Option<PlainBlock<'_>>> {
        self.vit.plain_block(segment, x)
    }

    /// features (B, d) to logits (B, classes), never in half precision.
    ///
    /// # Errors
    /// When the features have another width.
    pub fn classify(&self, features: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let dropped = || dropout(features, self.head_dropout, HEAD, mode);
        let logits = match &self.head {
            Head::Linear(head) => head.forward(&dropped()?)?,
            Head::Cosine(head) => head.forward(&dropped()?)?,
            Head::Vote(voters) => voters.logits(features)?,
        };
        widened(&logits)
    }
}

impl Head {
    fn new(params: &Params, form: Form) -> Result<Self> {
        let Some(knn) = form.knn else {
            return Ok(match form.head {
                HeadKind::Linear => Self::Linear(params.linear(Layer::Head.weight())?),
                HeadKind::Cosine => Self::Cosine(CosineHead::new(params)?),
            });
        };
        let labels = params.tensor("neighbors.labels")?.to_vec1::<f32>()?;
        let classes = params.tensor(Layer::Head.bias())?.dim(0)?;
        Ok(Self::Vote(Arc::new(Voters {
            knn,
            features: params.tensor("neighbors.features")?.flatten_all()?.to_vec1()?,
            labels: labels.into_iter().map(|label| label as usize).collect(),
            classes: vec![String::new(); classes],
        })))
    }
}

impl Voters {
    /// features (B, d) to logits (B, classes), on the CPU whatever the device.
    fn logits(&self, features: &Tensor) -> Result<Tensor> {
        let (rows, width) = features.dims2()?;
        let queries = features.flatten_all()?.to_vec1::<f32>()?;
        let vote = || -> crate::error::Result<Vec<f32>> {
            let voters = Samples::new(Matrix::new(&self.features, width), &self.labels, &self.classes)?;
            Ok(vote_logits(&self.knn.vote(&voters, Matrix::new(&queries, width))?.shares))
        };
        let logits = vote().map_err(candle_core::Error::wrap)?;
        Tensor::from_vec(logits, (rows, self.classes.len()), features.device())
    }
}

/// The parameters of a backbone with a fresh head from `width` features to `classes`, on `device`.
///
/// The head starts from a normal distribution of standard deviation 0.02 cut at two deviations, with a zero bias: not
/// from zero, which would stop the first gradient from reaching the backbone.
///
/// # Errors
/// When the device is out of memory.
pub fn assemble(backbone: Params, width: usize, classes: usize, seed: u64, device: &Device) -> Result<Params> {
    let mut params = backbone.to_device(device)?;
    let mut stream = Stream::new(seed, Purpose::Init, &[]);
    let weight: Vec<f32> = (0..classes * width).map(|_| truncated_normal(&mut stream) * 0.02).collect();
    params.insert(Layer::Head.weight(), Tensor::from_vec(weight, (classes, width), device)?);
    params.insert(Layer::Head.bias(), Tensor::zeros(classes, candle_core::DType::F32, device)?);
    Ok(params)
}

fn truncated_normal(stream: &mut Stream) -> f32 {
    loop {
        let value = stream.normal();
        if value.abs() <= 2.0 {
            return value as f32;
        }
    }
}

/// The shapes of all parameters, with a head on features of `width` values, for the strategy's plan.
pub fn all_shapes(spec: &VitSpec, width: usize, classes: usize) -> crate::backbone::Shapes {
    let mut shapes = spec.shapes();
    shapes.insert(Layer::Head.weight(), vec![classes, width]);
    shapes.insert(Layer::Head.bias(), vec![classes]);
    shapes
}
