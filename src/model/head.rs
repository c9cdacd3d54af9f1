//! The kinds of heads, from features to logits: which parameters each has, how they start, how they compute.

use super::cosine::CosineHead;
use super::patches::PatchHead;
use super::vote::VoteHead;
use crate::backbone::{Layer, Params, Part, PatchReadout, Shapes};
use crate::nn::Linear;
use crate::probe::Knn;
use crate::rng::{Purpose, Stream};
use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a head makes logits of features.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// An affine map.
    #[default]
    Linear,
    /// Scaled cosines with one direction a class.
    Cosine,
    /// A vote of remembered images. In files it is told by the probe that it comes from.
    #[serde(skip)]
    Vote(Knn),
    /// Distances of patches to those of sound parts. In files it is told by the probe that it comes from.
    #[serde(skip)]
    Patches(PatchReadout),
}

impl HeadKind {
    /// Whether all that it is lies in parameters that no plan trains: what it remembers of images.
    pub fn remembers(self) -> bool {
        matches!(self, Self::Vote(_) | Self::Patches(_))
    }

    /// The shapes of what may be trained of a head on features of `width` values; for a cosine head, on embeddings.
    pub fn shapes(self, width: usize, classes: usize) -> Shapes {
        let linear = || [(Layer::Head.weight(), vec![classes, width]), (Layer::Head.bias(), vec![classes])];
        match self {
            Self::Linear => linear().into(),
            Self::Cosine => linear().into_iter().chain([(Layer::Head.part(Part::LogitScale), vec![1])]).collect(),
            Self::Vote(_) | Self::Patches(_) => Shapes::new(),
        }
    }

    /// The parameters of a fresh head: none of one that remembers what it is given.
    ///
    /// A linear head starts from a normal distribution of standard deviation 0.02 cut at two deviations, with a zero bias:
    /// not from zero, which would stop the first gradient from reaching the backbone. The directions of a cosine head are
    /// still to be set.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn fresh(self, width: usize, classes: usize, seed: u64, device: &Device) -> Result<Params> {
        match self {
            Self::Linear => {
                let mut stream = Stream::new(seed, Purpose::Init, &[]);
                let weight: Vec<f32> = (0..classes * width).map(|_| truncated_normal(&mut stream) * 0.02).collect();
                let weight = Tensor::from_vec(weight, (classes, width), device)?;
                let bias = Tensor::zeros(classes, DType::F32, device)?;
                Ok(Params::from_iter([(Layer::Head.weight(), weight), (Layer::Head.bias(), bias)]))
            }
            Self::Cosine => CosineHead::params(&Tensor::zeros((classes, width), DType::F32, device)?, 0.0, 0.0),
            Self::Vote(_) | Self::Patches(_) => Ok(Params::default()),
        }
    }
}

fn truncated_normal(stream: &mut Stream) -> f32 {
    loop {
        let value = stream.normal();
        if value.abs() <= 2.0 {
            return value as f32;
        }
    }
}

/// A head over its parameters.
#[derive(Debug, Clone)]
pub(super) enum Head {
    Linear(Linear),
    Cosine(CosineHead),
    Vote(Arc<VoteHead>),
    Patches(Arc<PatchHead>),
}

impl Head {
    pub fn new(kind: HeadKind, params: &Params, classes: usize) -> Result<Self> {
        Ok(match kind {
            HeadKind::Linear => Self::Linear(params.linear(Layer::Head.weight())?),
            HeadKind::Cosine => Self::Cosine(CosineHead::new(params)?),
            HeadKind::Patches(_) => Self::Patches(Arc::new(PatchHead::new(params)?)),
            HeadKind::Vote(knn) => Self::Vote(Arc::new(VoteHead::new(knn, params, classes)?)),
        })
    }

    /// features (B, d) to logits (B, classes).
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        match self {
            Self::Linear(head) => head.forward(features),
            Self::Cosine(head) => head.forward(features),
            Self::Vote(head) => head.forward(features),
            Self::Patches(head) => head.forward(features),
        }
    }
}
