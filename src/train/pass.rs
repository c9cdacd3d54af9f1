//! One pass of a shard forward and back: as one graph, or stretch by stretch.
//!
//! A stretch keeps what its way back needs: a block that runs on plain values its activations, another one a graph of its
//! own. Gradient checkpointing (Chen et al. 2016) keeps only what enters each block, and runs the block again on the way
//! back. The random layers draw from keyed streams, so the second run is the first one to the bit.

use super::classifier::Classifier;
use super::gathering::Gathering;
use crate::backbone::{Kept, ParamName, PlainBlock, Segment};
use crate::nn::Mode;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// What goes into a pass.
pub struct Pass<'a> {
    /// Inputs of the classifier's stage (B, …).
    pub inputs: &'a Tensor,
    /// With its randomness.
    pub mode: Mode<'a>,
    /// Where the gradients of the learning parameters go.
    pub gathering: &'a Gathering<'a>,
    /// Which part of the step it is, from 0.
    pub part: usize,
    /// From logits to a scalar.
    pub loss: &'a dyn Fn(&Tensor) -> Result<Tensor>,
    /// Factor on the loss before it is differentiated; the gradients carry it.
    pub loss_scale: f64,
}

/// What comes out of a pass.
pub struct Outcome {
    /// (B, classes)
    pub logits: Tensor,
    /// A scalar, without the factor. It stays on its device: reading it would wait for the whole pass.
    pub loss: Tensor,
}

/// What a stretch has kept of its run.
enum Way<'a> {
    /// What entered: it runs again.
    Again(Tensor),
    /// The activations of a block.
    Plain(PlainBlock<'a>, Box<Kept>),
    /// What entered, and what left over a graph.
    Graph(Tensor, Tensor),
}

impl Pass<'_> {
    /// Forward and back. Blocks that can run on plain values do; where none can, the whole network is one graph. With a
    /// `detached` learner each stretch runs without keeping anything first.
    ///
    /// # Errors
    /// When the device fails, or an operation cut the graph.
    pub fn run(&self, learner: &Classifier, detached: Option<&Classifier>) -> Result<Outcome> {
        let segments = learner.segments();
        if segments.is_empty() || (detached.is_none() && !learner.is_plain()) {
            return self.whole(learner);
        }
        let (lowest, last) = (self.lowest(&segments), segments.len() - 1);
        let mut ways = Vec::with_capacity(segments.len());
        let mut x = self.inputs.clone();
        for (index, &segment) in segments.iter().enumerate() {
            x = match detached {
                // Below the lowest learning parameter there is no way back.
                _ if index < lowest => learner.run_segment(segment, &x, self.mode)?.detach(),
                Some(detached) if index < last => {
                    let output = detached.run_segment(segment, &x, self.mode)?;
                    ways.push((segment, Way::Again(x)));
                    output
                }
                _ => {
                    let (output, way) = self.open(segment, &x, learner)?;
                    ways.push((segment, way));
                    output.detach()
                }
            };
        }
        self.back(x, ways, learner)
    }

    /// In one piece, with the whole graph in memory.
    fn whole(&self, learner: &Classifier) -> Result<Outcome> {
        let logits = learner.logits(self.inputs, self.mode)?;
        let (loss, scaled) = self.scaled_loss(&logits)?;
        self.gathering.take(self.part, &mut scaled.backward()?)?;
        Ok(Outcome { logits: logits.detach(), loss })
    }

    /// The first of the stretches in which something learns.
    fn lowest(&self, segments: &[Segment]) -> usize {
        let names = self.gathering.params().trained().filter_map(|(name, _)| name.parse::<ParamName>().ok());
        let lowest = names.map(ParamName::segment).min().unwrap_or(Segment::Head);
        segments.iter().position(|segment| *segment >= lowest).unwrap_or(segments.len() - 1)
    }

    /// Runs a stretch so that it can be gone back.
    fn open<'a>(&self, segment: Segment, x: &Tensor, learner: &'a Classifier) -> Result<(Tensor, Way<'a>)> {
        if let Some(block) = learner.plain_block(segment, x)? {
            let (output, kept) = block.run(x, self.mode)?;
            return Ok((output, Way::Plain(block, Box::new(kept))));
        }
        // Nobody needs the gradient of the images themselves.
        let input = if segment == Segment::Embed { x.clone() } else { Var::from_tensor(x)?.into_inner() };
        let output = learner.run_segment(segment, &input, self.mode)?;
        Ok((output.clone(), Way::Graph(input, output)))
    }

    /// From the loss on `logits` back through the stretches.
    fn back(&self, logits: Tensor, ways: Vec<(Segment, Way<'_>)>, learner: &Classifier) -> Result<Outcome> {
        let mut loss = None;
        let mut upstream: Option<Tensor> = None;
        for (index, (segment, way)) in ways.into_iter().enumerate().rev() {
            let way = match way {
                Way::Again(x) => self.open(segment, &x, learner)?.1,
                way => way,
            };
            let mut store = GradStore::default();
            upstream = match (way, &upstream) {
                (Way::Plain(block, kept), Some(dy)) => block.back(*kept, dy, index > 0, &mut store)?,
                (Way::Graph(input, output), upstream) => {
                    let scalar = if let Some(dy) = upstream {
                        (&output * dy)?.sum_all()?
                    } else {
                        let (value, scaled) = self.scaled_loss(&output)?;
                        loss = Some(value);
                        scaled
                    };
                    store = scalar.backward()?;
                    store.remove(&input).map(|dx| dx.detach())
                }
                (Way::Plain(..) | Way::Again(_), _) => candle_core::bail!("{segment:?} has no way back"),
            };
            self.gathering.take(self.part, &mut store)?;
        }
        let Some(loss) = loss else { candle_core::bail!("no stretch ends in the loss") };
        Ok(Outcome { logits, loss })
    }

    /// The loss without its graph, and what is differentiated.
    fn scaled_loss(&self, logits: &Tensor) -> Result<(Tensor, Tensor)> {
        let loss = (self.loss)(logits)?;
        let value = loss.detach();
        let scaled = if self.loss_scale == 1.0 { loss } else { (loss * self.loss_scale)? };
        Ok((value, scaled))
    }
}
