//! The layers of a model over parameters: the backbone, the dropout before the head, the head.

use super::ModelSpec;
use super::head::{Head, HeadKind};
use super::patches::PatchHead;
use crate::backbone::{Activations, Params, PatchReadout, PlainBlock, Readout, Segment, Vit};
use crate::kernels::widened;
use crate::nn::{Mode, dropout};
use crate::strategy::drop_path_rates;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// Marks the head's dropout among the random masks; blocks use small numbers.
const HEAD: u64 = u64::MAX;

/// Rates of the layers that are random in training.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DropRates {
    /// Stochastic depth in the last block.
    pub path: f64,
    /// Dropout on the features before the head.
    pub head: f64,
}

/// Layers over shared parameters.
#[derive(Debug, Clone)]
pub struct Classifier {
    vit: Vit,
    start: Segment,
    readout: Readout,
    /// What the head reads instead of features.
    patches: Option<PatchReadout>,
    /// None where it ends in the features.
    head: Option<Head>,
    head_dropout: f64,
}

impl Classifier {
    /// Builds the layers over `params`. Blocks below `first_block` are never dropped.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(spec: &ModelSpec, params: &Params, drop: DropRates, first_block: usize) -> Result<Self> {
        let vit = Vit::new(&spec.vit, params, &drop_path_rates(drop.path, spec.vit.depth, first_block))?;
        Ok(Self {
            vit: match &spec.lora {
                Some(lora) => vit.adapted(lora, params)?,
                None => vit,
            },
            start: spec.start,
            readout: spec.readout,
            patches: match spec.head {
                HeadKind::Patches(patches) => Some(patches),
                _ => None,
            },
            head: Some(Head::new(spec.head, params, spec.classes)?),
            head_dropout: drop.head,
        })
    }

    /// The same layers, ending in the features that the head reads.
    #[must_use]
    pub fn without_head(self) -> Self {
        Self { head: None, ..self }
    }

    /// Its inputs (B, …) to logits (B, classes).
    ///
    /// # Errors
    /// When the inputs do not have the shape that its first segment reads.
    pub fn logits(&self, inputs: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.classify(&self.features(inputs, mode)?, mode)
    }

    /// Its inputs (B, …) to the features that the head reads (B, d).
    ///
    /// # Errors
    /// When the inputs do not have the shape that its first segment reads.
    pub fn features(&self, inputs: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        match (self.patches, self.start) {
            (Some(patches), Segment::Embed) => self.vit.extract(Activations::Patches(patches), inputs, mode),
            (Some(_), Segment::Head) => Ok(inputs.clone()),
            _ => self.vit.run_from(self.start, self.readout, inputs, mode),
        }
    }

    /// What the head compares patches with, where it does.
    pub(super) fn patch_head(&self) -> Option<Arc<PatchHead>> {
        match &self.head {
            Some(Head::Patches(head)) => Some(Arc::clone(head)),
            Some(Head::Linear(_) | Head::Cosine(_) | Head::Vote(_)) | None => None,
        }
    }

    /// The segments whose runs, one after another, give the logits of the pooled features. The last one ends in logits.
    pub fn segments(&self) -> Vec<Segment> {
        self.vit.segments(self.start)
    }

    /// One of [`Classifier::segments`], from what the one before it left.
    ///
    /// # Errors
    /// When `x` does not have the shape the segment reads.
    pub fn run_segment(&self, segment: Segment, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let out = self.vit.run_segment(segment, x, mode)?;
        if segment == Segment::Pool { self.classify(&out, mode) } else { Ok(out) }
    }

    /// Whether its blocks run on plain values, without a graph.
    pub fn is_plain(&self) -> bool {
        self.vit.is_plain()
    }

    /// The block of a segment, if it can run on plain values.
    ///
    /// # Errors
    /// When `x` has no tokens.
    pub fn plain_block(&self, segment: Segment, x: &Tensor) -> Result<Option<PlainBlock<'_>>> {
        self.vit.plain_block(segment, x)
    }

    /// The features of the tiles of an image (1, T, d) to those of the image, which the head reads.
    ///
    /// # Errors
    /// When there are no tiles.
    pub fn of_tiles(&self, features: &Tensor) -> Result<Tensor> {
        self.vit.tile_pool().forward(features)
    }

    /// features (B, d) to logits (B, classes), never in half precision; unchanged without a head.
    ///
    /// # Errors
    /// When the features have another width.
    pub fn classify(&self, features: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        match &self.head {
            Some(head) => widened(&head.forward(&dropout(features, self.head_dropout, HEAD, mode)?)?),
            None => Ok(features.clone()),
        }
    }
}
