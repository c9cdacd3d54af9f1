//! One pass of a shard forward and back: in one piece, or block by block.
//!
//! Gradient checkpointing (Chen et al. 2016) keeps only what enters each block, and runs the block again on the way back.
//! The random layers draw from keyed streams, so the second run is the first one to the bit.

use super::classifier::Classifier;
use super::gradients::Gradients;
use crate::backbone::{Params, Segment};
use crate::nn::Mode;
use candle_core::{Result, Tensor, Var};

/// What goes into a pass.
pub struct Pass<'a> {
    /// Inputs of the classifier's stage (B, …).
    pub inputs: &'a Tensor,
    /// With its randomness.
    pub mode: Mode<'a>,
    /// The learning ones get gradients.
    pub params: &'a Params,
    /// From logits to a scalar.
    pub loss: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// Factor on the loss before it is differentiated; the gradients carry it.
    pub loss_scale: f64,
}

/// What comes out of a pass.
pub struct Outcome {
    /// (B, classes)
    pub logits: Tensor,
    /// Without the factor.
    pub loss: f64,
    /// Of the scaled loss.
    pub gradients: Gradients,
}

impl Pass<'_> {
    /// In one piece, with the whole graph in memory.
    ///
    /// # Errors
    /// When the device fails, or an operation cut the graph.
    pub fn whole(&self, learner: &Classifier) -> Result<Outcome> {
        let logits = learner.logits(self.inputs, self.mode)?;
        let (value, scaled) = self.scaled_loss(&logits)?;
        Ok(Outcome { logits: logits.detach(), loss: value, gradients: Gradients::of(&scaled, self.params)? })
    }

    /// Block by block: `detached` runs forward without a graph, then `learner` runs each block once more with one.
    ///
    /// # Errors
    /// When the device fails, or an operation cut the graph.
    pub fn by_segments(&self, learner: &Classifier, detached: &Classifier) -> Result<Outcome> {
        let segments = learner.segments();
        let Some((&last, before)) = segments.split_last() else { return self.whole(learner) };
        let mut entering = vec![self.inputs.clone()];
        for (i, &segment) in before.iter().enumerate() {
            entering.push(detached.run_segment(segment, &entering[i], self.mode)?);
        }
        let mut back = Backward { pass: self, learner, entering, gradients: Gradients::default() };
        let mut loss = f64::NAN;
        let (logits, mut upstream) = back.through(last, &mut |logits| {
            let (value, scaled) = self.scaled_loss(logits)?;
            loss = value;
            Ok(scaled)
        })?;
        for &segment in before.iter().rev() {
            // What lies below the lowest learning parameter needs no second run.
            if back.gradients.complete(self.params).is_ok() {
                break;
            }
            upstream = back.through(segment, &mut |output| (output * &upstream)?.sum_all())?.1;
        }
        back.gradients.complete(self.params)?;
        Ok(Outcome { logits, loss, gradients: back.gradients })
    }

    /// The loss and what is differentiated.
    fn scaled_loss(&self, logits: &Tensor) -> Result<(f64, Tensor)> {
        let loss = (self.loss)(logits)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let scaled = if self.loss_scale == 1.0 { loss } else { (loss * self.loss_scale)? };
        Ok((value, scaled))
    }
}

/// The way back through the segments, from the last.
struct Backward<'a> {
    pass: &'a Pass<'a>,
    learner: &'a Classifier,
    /// What enters each segment that is still to come.
    entering: Vec<Tensor>,
    gradients: Gradients,
}

impl Backward<'_> {
    /// Runs the last remaining segment with a graph of its own and differentiates `scalar` of its output: the output, and
    /// the gradient of what entered.
    fn through(
        &mut self,
        segment: Segment,
        scalar: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let Some(entering) = self.entering.pop() else { candle_core::bail!("nothing enters {segment:?}") };
        // Nobody needs the gradient of the images themselves.
        let input = if segment == Segment::Embed { entering } else { Var::from_tensor(&entering)?.into_inner() };
        let output = self.learner.run_segment(segment, &input, self.pass.mode)?;
        let mut store = scalar(&output)?.backward()?;
        self.gradients.take(&mut store, self.pass.params);
        let upstream = store.remove(&input).unwrap_or(input);
        Ok((output.detach(), upstream.detach()))
    }
}
