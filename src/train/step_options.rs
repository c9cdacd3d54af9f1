//! Which step is computed and how it is cut, and what its samples are held against.

use crate::data::loader::Batch;
use crate::nn::Targets;
use crate::system::signals::StopRequest;
use candle_core::Tensor;
use std::ops::Range;

/// Which step it is, and how it is cut.
#[derive(Debug, Clone, Copy)]
pub struct StepOptions<'a> {
    /// Seed of the random layers.
    pub seed: u64,
    /// The optimiser step.
    pub step: usize,
    /// Parts that are computed one after another.
    pub micro_batches: usize,
    /// Factor on the loss in the backward pass, against underflow in f16; the gradients come without it.
    pub loss_scale: f64,
    /// Where a signal may ask to leave the step before its next part.
    pub stop: Option<&'a StopRequest>,
    /// The inputs of the whole batch where they are on the device already; else those of the batch are sent, in parts.
    pub inputs: Option<&'a Tensor>,
}

impl StepOptions<'_> {
    /// The whole batch at once, without a factor.
    pub fn new(seed: u64, step: usize) -> Self {
        Self { seed, step, micro_batches: 1, loss_scale: 1.0, stop: None, inputs: None }
    }
}

/// What some samples of a batch should be classified as.
pub(super) fn targets(batch: &Batch, samples: Range<usize>) -> Targets<'_> {
    if batch.soft_labels.is_empty() {
        return Targets::Hard(&batch.labels[samples]);
    }
    let classes = batch.soft_labels.len() / batch.labels.len();
    Targets::Soft(&batch.soft_labels[samples.start * classes..samples.end * classes])
}
