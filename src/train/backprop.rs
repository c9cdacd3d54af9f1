//! A shard forward and backward: in one piece, or segment by segment.
//!
//! A segment keeps what its backward pass needs: a block that runs on plain values its activations, another one a tape of
//! its operations. Gradient checkpointing (Chen et al. 2016) keeps only what enters each block, and runs the block again in the
//! backward pass. The random layers draw from keyed streams, so the second run is the first one to the bit.

use super::accumulator::GradientAccumulator;
use crate::backbone::{ParamName, PlainBlock, SavedValues, Segment};
use crate::kernels::tape::{Tape, record};
use crate::model::Classifier;
use crate::nn::Mode;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// A shard and what is made of it.
pub struct Backprop<'a> {
    /// Inputs of the model (B, …).
    pub inputs: &'a Tensor,
    /// With its randomness.
    pub mode: Mode<'a>,
    /// Where the gradients of the trainable parameters go.
    pub accumulator: &'a GradientAccumulator<'a>,
    /// Which part of the step it is, from 0.
    pub part: usize,
    /// From logits to a scalar.
    pub loss: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// Factor on the loss before it is differentiated; the gradients carry it.
    pub loss_scale: f64,
}

/// What a segment has saved for its backward pass.
enum ForBackward<'a> {
    /// What entered: it runs again.
    Input(Tensor),
    /// The activations of a block.
    Plain(PlainBlock<'a>, Box<SavedValues>),
    /// What entered, what left, and the operations in between.
    Recorded(Tensor, Tensor, Tape),
}

impl Backprop<'_> {
    /// The logits (B, classes) and the loss, a scalar without the factor. It stays on its device: reading it would wait for
    /// the whole backward pass.
    ///
    /// Blocks that can run on plain values do; where none can, the whole network is one piece. With `detached` layers each
    /// segment first runs without saving anything.
    ///
    /// # Errors
    /// When the device fails, or an operation cut the graph.
    pub fn run(&self, layers: &Classifier, detached: Option<&Classifier>) -> Result<(Tensor, Tensor)> {
        let segments = layers.segments();
        if segments.is_empty() || (detached.is_none() && !layers.is_plain()) {
            return self.whole(layers);
        }
        let (lowest, last) = (self.lowest(&segments), segments.len() - 1);
        let mut saved = Vec::with_capacity(segments.len());
        let mut x = self.inputs.clone();
        for (index, &segment) in segments.iter().enumerate() {
            x = match detached {
                // Nothing below the lowest trainable parameter needs a gradient.
                _ if index < lowest => layers.run_segment(segment, &x, self.mode)?.detach(),
                Some(detached) if index < last => {
                    let output = detached.run_segment(segment, &x, self.mode)?;
                    saved.push((segment, ForBackward::Input(x)));
                    output
                }
                _ => {
                    let (output, kept) = self.forward(segment, &x, layers)?;
                    saved.push((segment, kept));
                    output.detach()
                }
            };
        }
        self.backward(x, saved, layers)
    }

    /// In one piece, with all that it needs in memory.
    fn whole(&self, layers: &Classifier) -> Result<(Tensor, Tensor)> {
        let ((logits, loss, scaled), tape) = record(|| {
            let logits = layers.logits(self.inputs, self.mode)?;
            let (loss, scaled) = self.scaled_loss(&logits)?;
            Ok((logits.detach(), loss, scaled))
        })?;
        let mut store = scaled.backward()?;
        tape.backward(&mut store)?;
        self.accumulator.add(self.part, &mut store)?;
        Ok((logits, loss))
    }

    /// The first of the segments with a trainable parameter.
    fn lowest(&self, segments: &[Segment]) -> usize {
        let names = self.accumulator.params().trained().filter_map(|(name, _)| name.parse::<ParamName>().ok());
        let lowest = names.map(ParamName::segment).min().unwrap_or(Segment::Head);
        segments.iter().position(|segment| *segment >= lowest).unwrap_or(segments.len() - 1)
    }

    /// The forward pass of a segment, with what its backward pass needs.
    fn forward<'a>(&self, segment: Segment, x: &Tensor, layers: &'a Classifier) -> Result<(Tensor, ForBackward<'a>)> {
        if let Some(block) = layers.plain_block(segment, x)? {
            let (output, kept) = block.forward(x, self.mode)?;
            return Ok((output, ForBackward::Plain(block, Box::new(kept))));
        }
        // Nobody needs the gradient of the images themselves.
        let input = if segment == Segment::Embed { x.clone() } else { Var::from_tensor(x)?.into_inner() };
        let (output, tape) = record(|| layers.run_segment(segment, &input, self.mode))?;
        Ok((output.clone(), ForBackward::Recorded(input, output, tape)))
    }

    /// From the loss on `logits` backward through the segments.
    fn backward(
        &self,
        logits: Tensor,
        saved: Vec<(Segment, ForBackward<'_>)>,
        layers: &Classifier,
    ) -> Result<(Tensor, Tensor)> {
        let mut loss = None;
        let mut upstream: Option<Tensor> = None;
        for (index, (segment, kept)) in saved.into_iter().enumerate().rev() {
            let kept = match kept {
                ForBackward::Input(x) => self.forward(segment, &x, layers)?.1,
                kept => kept,
            };
            let mut store = GradStore::default();
            upstream = match (kept, &upstream) {
                (ForBackward::Plain(block, kept), Some(dy)) => block.backward(*kept, dy, index > 0, &mut store)?,
                (ForBackward::Recorded(input, output, tape), upstream) => {
                    let scalar = if let Some(dy) = upstream {
                        (&output * dy)?.sum_all()?
                    } else {
                        let (value, scaled) = self.scaled_loss(&output)?;
                        loss = Some(value);
                        scaled
                    };
                    store = scalar.backward()?;
                    tape.backward(&mut store)?;
                    store.remove(&input).map(|dx| dx.detach())
                }
                (ForBackward::Plain(..) | ForBackward::Input(_), _) => {
                    candle_core::bail!("{segment:?} has no backward pass")
                }
            };
            self.accumulator.add(self.part, &mut store)?;
        }
        let Some(loss) = loss else { candle_core::bail!("no segment ends in the loss") };
        Ok((logits, loss))
    }

    /// The loss without its graph, and what is differentiated.
    fn scaled_loss(&self, logits: &Tensor) -> Result<(Tensor, Tensor)> {
        let loss = (self.loss)(logits)?;
        let value = loss.detach();
        let scaled = if self.loss_scale == 1.0 { loss } else { (loss * self.loss_scale)? };
        Ok((value, scaled))
    }
}
