//! Directions of a cosine head that follow from learnt words through a frozen text tower.
//!
//! A step goes through the text tower once, whatever the images: forward for all classes, shared out over the workers;
//! then the images with the directions as if these learnt; then back through the tower with the gradient that the images
//! gave the directions. That is the chain rule in two pieces, and the same numbers as in one.

use super::cosine::CosineHead;
use super::gradients::Gradients;
use crate::backbone::Params;
use crate::system::workers::{Workers, cut};
use crate::text::ContextPrompts;
use candle_core::{Result, Tensor, Var};
use std::ops::Range;

/// The learning parameter: the vectors that stand for words.
pub const CONTEXT: &str = "prompt.context";
/// What follows from it.
const DIRECTIONS: &str = "head.weight";

/// The learnt words with the directions that they give.
pub(super) struct Directions {
    prompts: ContextPrompts,
    /// All parameters as a pass over images sees them: the directions learn, nothing else does.
    pub params: Params,
    /// The directions among them.
    values: Var,
    /// The context that the directions were made of.
    made_of: Var,
}

/// Directions with their graphs.
pub(super) struct Forward(Vec<(Range<usize>, Tensor)>);

impl Directions {
    /// Adds the context and what compares images with its directions to `params`, which have all else. The context
    /// learns, nothing else does.
    pub fn new(prompts: ContextPrompts, params: &mut Params, workers: &Workers) -> Result<Self> {
        let start = prompts.start();
        let forward = Forward::new(&prompts, start, workers)?;
        params.extend(CosineHead::params(&forward.values()?, prompts.logit_scale, prompts.logit_bias)?);
        let pass = params.clone().train_where(|name| name == DIRECTIONS)?;
        let Some((_, directions)) = pass.trained().next() else { candle_core::bail!("there is no {DIRECTIONS:?}") };
        let values = directions.clone();
        params.insert(DIRECTIONS, values.as_detached_tensor());
        params.insert(CONTEXT, start.clone());
        *params = std::mem::take(params).train_where(|name| name == CONTEXT)?;
        Ok(Self { made_of: Var::from_tensor(start)?, prompts, params: pass, values })
    }

    /// The prompts with the text tower behind them.
    pub fn prompts(&self) -> &ContextPrompts {
        &self.prompts
    }

    /// The directions of the context in `params` as it is now, with a graph.
    pub fn forward(&self, params: &Params, workers: &Workers) -> Result<Forward> {
        let context = params.tensor(CONTEXT)?;
        let forward = Forward::new(&self.prompts, &context, workers)?;
        self.values.set(&forward.values()?)?;
        self.made_of.set(&context.detach())?;
        Ok(forward)
    }

    /// Brings the directions up to date after whoever has written to the context.
    pub fn refresh(&self, params: &Params, workers: &Workers) -> Result<()> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        if values(&params.tensor(CONTEXT)?)? == values(&self.made_of)? {
            return Ok(());
        }
        self.forward(&params.detached(), workers).map(|_| ())
    }
}

impl Forward {
    fn new(prompts: &ContextPrompts, context: &Tensor, workers: &Workers) -> Result<Self> {
        let classes = prompts.classes();
        let parts = cut(classes, workers.count().min(classes));
        workers.map(parts, |classes| Ok((classes.clone(), prompts.directions(context, classes)?))).map(Self)
    }

    /// All directions (C, E), without a graph.
    fn values(&self) -> Result<Tensor> {
        Tensor::cat(&self.0.iter().map(|(_, part)| part.detach()).collect::<Vec<_>>(), 0)
    }

    /// From the gradient of the directions to that of the context, which is all that learns in `params`.
    pub fn back(self, gradients: &Gradients, params: &Params, workers: &Workers) -> Result<Gradients> {
        let upstream = gradients.get(DIRECTIONS)?;
        let parts = workers.map(self.0, |(classes, part)| {
            let product = (part * upstream.narrow(0, classes.start, classes.len())?)?;
            Gradients::of(&product.sum_all()?, params)
        })?;
        let mut total = Gradients::default();
        parts.into_iter().try_for_each(|part| total.add(part, workers))?;
        Ok(total)
    }
}
