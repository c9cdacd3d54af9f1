//! A backbone with a classification head: what is trained, scored and saved.

use crate::backbone::{Params, Vit, VitSpec};
use crate::nn::{Linear, Mode, dropout};
use crate::rng::{Purpose, Stream};
use crate::strategy::{Plan, drop_path_rates};
use candle_core::{Device, Result, Tensor};

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

/// Layers over shared parameters.
#[derive(Debug, Clone)]
pub struct Classifier {
    vit: Vit,
    head: Linear,
    head_dropout: f64,
}

impl Classifier {
    /// Builds the layers over `params`, in which `plan` says which blocks learn.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(spec: &VitSpec, params: &Params, plan: &Plan, rates: Regularisation) -> Result<Self> {
        let drop_path = drop_path_rates(rates.drop_path, spec.depth, plan.first_block);
        Ok(Self {
            vit: Vit::new(spec, params, &drop_path)?,
            head: Linear::new(params.tensor("head.weight")?, params.get("head.bias")),
            head_dropout: rates.head_dropout,
        })
    }

    /// pixels (B, 3, S, S) to logits (B, classes).
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn logits(&self, pixels: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let features = self.vit.features(pixels, mode)?;
        self.head.forward(&dropout(&features, self.head_dropout, HEAD, mode)?)
    }
}

/// The parameters of a backbone with features of that width and a fresh head for `classes`, on `device`.
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
    params.insert("head.weight", Tensor::from_vec(weight, (classes, width), device)?);
    params.insert("head.bias", Tensor::zeros(classes, candle_core::DType::F32, device)?);
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

/// The shapes of all parameters, head included, for the strategy's plan.
pub fn all_shapes(spec: &VitSpec, classes: usize) -> crate::backbone::Shapes {
    let mut shapes = spec.shapes();
    shapes.insert("head.weight".into(), vec![classes, spec.features()]);
    shapes.insert("head.bias".into(), vec![classes]);
    shapes
}
