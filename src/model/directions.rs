//! Directions of a cosine head that follow from learnt words through a frozen text tower.
//!
//! A step goes through the text tower once, whatever the images: forward for all classes, shared out over the workers;
//! then the images with the directions as if these were trainable; then back through the tower with the gradient that the images
//! gave the directions. That is the chain rule in two pieces, and the same numbers as in one.

use super::cosine::CosineHead;
use crate::backbone::{Layer, ParamName, Params};
use crate::nn::workers::{Workers, cut};
use crate::text::ContextPrompts;
use candle_core::{Result, Tensor, Var};
use std::ops::Range;

/// The trainable parameter: the vectors that stand for words.
pub const CONTEXT: ParamName = Layer::Context.whole();
/// What follows from it.
const DIRECTIONS: ParamName = Layer::Head.weight();

/// The learnt words with the directions that they give.
pub struct Directions {
    prompts: ContextPrompts,
    /// All parameters as the forward pass of images sees them: the directions are trainable, nothing else is.
    params: Params,
    /// The directions among them.
    values: Var,
    /// The context that the directions were made of.
    made_of: Var,
}

/// The directions of some classes each, with their graphs.
pub struct DirectionsGraph(Vec<(Range<usize>, Tensor)>);

impl Directions {
    /// Adds the context and what compares images with its directions to `params`, which have all else. The context is
    /// trainable, nothing else is.
    pub(super) fn new(prompts: ContextPrompts, params: &mut Params, workers: &Workers) -> Result<Self> {
        let start = prompts.start();
        let directions = DirectionsGraph::new(&prompts, start, workers)?.values()?;
        params.extend(CosineHead::params(&directions, prompts.logit_scale, prompts.logit_bias)?);
        let of_images = params.clone().train_where(|name| name.parse() == Ok(DIRECTIONS))?;
        let Some((_, directions)) = of_images.trained().next() else { candle_core::bail!("there is no {DIRECTIONS}") };
        let values = directions.clone();
        params.insert(DIRECTIONS, values.as_detached_tensor());
        params.insert(CONTEXT, start.clone());
        *params = std::mem::take(params).train_where(|name| name.parse() == Ok(CONTEXT))?;
        Ok(Self { made_of: Var::from_tensor(start)?, prompts, params: of_images, values })
    }

    /// The prompts with the text tower behind them.
    pub fn prompts(&self) -> &ContextPrompts {
        &self.prompts
    }

    /// All parameters as the forward pass of images sees them: the directions are trainable, nothing else is.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The directions of the context in `params` as it is now, with a graph.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, params: &Params, workers: &Workers) -> Result<DirectionsGraph> {
        let context = params.tensor(CONTEXT)?;
        let graph = DirectionsGraph::new(&self.prompts, &context, workers)?;
        self.values.set(&graph.values()?)?;
        self.made_of.set(&context.detach())?;
        Ok(graph)
    }

    /// Brings the directions up to date after whoever has written to the context.
    pub(super) fn refresh(&self, params: &Params, workers: &Workers) -> Result<()> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        if values(&params.tensor(CONTEXT)?)? == values(&self.made_of)? {
            return Ok(());
        }
        self.forward(&params.detached(), workers).map(|_| ())
    }
}

impl DirectionsGraph {
    fn new(prompts: &ContextPrompts, context: &Tensor, workers: &Workers) -> Result<Self> {
        let classes = prompts.classes();
        let parts = cut(classes, workers.count().min(classes));
        workers.map(parts, |classes| Ok((classes.clone(), prompts.directions(context, classes)?))).map(Self)
    }

    /// All directions (C, E), without a graph.
    fn values(&self) -> Result<Tensor> {
        Tensor::cat(&self.0.iter().map(|(_, part)| part.detach()).collect::<Vec<_>>(), 0)
    }

    /// Hands to `differentiate` the parts, by number, of what the gradient of the context is that of: products of directions
    /// with their own gradients, of which `upstream` (C, E) has all. Gives the number of parts.
    ///
    /// # Errors
    /// Those of `differentiate`, and when the device fails.
    pub fn backward(
        self,
        upstream: &Tensor,
        workers: &Workers,
        differentiate: impl Fn(usize, &Tensor) -> Result<()> + Sync,
    ) -> Result<usize> {
        let parts = self.0.into_iter().enumerate().collect();
        let done = workers.map(parts, |(part, (classes, directions))| {
            let upstream = upstream.narrow(0, classes.start, classes.len())?;
            differentiate(part, &(directions * upstream)?.sum_all()?)
        })?;
        Ok(done.len())
    }
}
