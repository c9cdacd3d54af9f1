//! Learnt tokens beside the patches (visual prompt tuning, Jia et al. 2022, and its `models/vit_prompt/vit.py`).
//!
//! They stand behind the class token and the registers, without a position. Deep prompts join the tokens of every block
//! and leave them behind it; shallow ones join before the first block and leave behind the last. So no pooling sees them.
//!
//! Canonical names: `blocks.N.prompt` (p, d); shallow prompts have N = 0 alone.

use super::name::{Layer, ParamName};
use super::params::Params;
use super::spec::{Shapes, VitSpec};
use crate::config::VisualPromptSettings;
use crate::rng::{Purpose, Stream};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// The prompts of a backbone; of one without any, tokens go on as they are.
#[derive(Debug, Clone)]
pub struct VisualPrompts {
    /// (p, d), by block.
    blocks: Vec<Tensor>,
    /// Tokens that stand before them.
    before: usize,
    depth: usize,
}

impl VisualPrompts {
    /// Those of `params`.
    pub fn of(spec: &VitSpec, params: &Params) -> Self {
        let blocks = (0..spec.depth).map_while(|block| params.get(name(block))).collect();
        Self { blocks, before: spec.prefix_tokens(), depth: spec.depth }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The prompts (p, d) that join before `block`.
    pub fn joining(&self, block: usize) -> Option<&Tensor> {
        self.blocks.get(block)
    }

    /// Whether prompts leave behind `block`.
    pub fn are_leaving(&self, block: usize) -> bool {
        !self.is_empty() && (self.blocks.len() == self.depth || block + 1 == self.depth)
    }

    /// How many tokens stand before the prompts, and how many these are.
    ///
    /// # Errors
    /// When they are not rows of tokens.
    pub fn span(&self) -> Result<(usize, usize)> {
        Ok((self.before, self.blocks.first().map_or(Ok(0), |prompt| prompt.dim(0))?))
    }

    /// The tokens (B, T, d) that the block before left, to those that `block` reads.
    ///
    /// # Errors
    /// When the tokens have another width.
    pub fn join(&self, block: usize, x: &Tensor) -> Result<Tensor> {
        let Some(prompt) = self.joining(block) else { return Ok(x.clone()) };
        let (batch, _, width) = x.dims3()?;
        self.insert_among(x, &prompt.unsqueeze(0)?.broadcast_as((batch, prompt.dim(0)?, width))?)
    }

    /// The same for what is known of each token (B, T, n), where prompts have zeros.
    ///
    /// # Errors
    /// When there are fewer tokens than stand before the prompts.
    pub fn join_zeros(&self, block: usize, x: &Tensor) -> Result<Tensor> {
        if self.joining(block).is_some() { self.insert_zeros(x) } else { Ok(x.clone()) }
    }

    /// Backward of `join`: from the gradient of the tokens that `block` reads to that of those that the block before left,
    /// with that of the prompts left in `store`.
    ///
    /// # Errors
    /// When the prompts are not among the tokens.
    pub fn join_backward(&self, block: usize, dx: &Tensor, store: &mut GradStore) -> Result<Tensor> {
        let Some(prompt) = self.joining(block) else { return Ok(dx.clone()) };
        let (before, count) = self.span()?;
        store.insert(prompt, dx.narrow(1, before, count)?.sum(0)?);
        self.without(dx)
    }

    fn insert_zeros(&self, x: &Tensor) -> Result<Tensor> {
        let ((batch, _, width), (_, count)) = (x.dims3()?, self.span()?);
        self.insert_among(x, &Tensor::zeros((batch, count, width), x.dtype(), x.device())?)
    }

    /// `rows` (B, p, d) where prompts stand among x (B, T, d).
    fn insert_among(&self, x: &Tensor, rows: &Tensor) -> Result<Tensor> {
        if self.before == 0 {
            return Tensor::cat(&[rows, x], 1);
        }
        let patches = x.narrow(1, self.before, x.dim(1)? - self.before)?;
        Tensor::cat(&[&x.narrow(1, 0, self.before)?, rows, &patches], 1)
    }

    /// The tokens (B, T, d) that `block` made, to those that go on.
    ///
    /// # Errors
    /// When the prompts are not among the tokens.
    pub fn leave(&self, block: usize, x: &Tensor) -> Result<Tensor> {
        if self.are_leaving(block) { self.without(x) } else { Ok(x.clone()) }
    }

    /// Backward of `leave`: from the gradient of the tokens that go on to that of those that `block` made.
    ///
    /// # Errors
    /// When there are fewer tokens than stand before the prompts.
    pub fn leave_backward(&self, block: usize, dy: &Tensor) -> Result<Tensor> {
        if self.are_leaving(block) { self.insert_zeros(dy) } else { Ok(dy.clone()) }
    }

    /// What a readout takes of the tokens that went on behind `block`: all but the prompts.
    ///
    /// # Errors
    /// When the prompts are not among the tokens.
    pub fn read(&self, block: usize, x: &Tensor) -> Result<Tensor> {
        if self.is_empty() || self.are_leaving(block) { Ok(x.clone()) } else { self.without(x) }
    }

    fn without(&self, x: &Tensor) -> Result<Tensor> {
        let (before, count) = self.span()?;
        let patches = x.narrow(1, before + count, x.dim(1)? - before - count)?;
        if before == 0 { patches.contiguous() } else { Tensor::cat(&[x.narrow(1, 0, before)?, patches], 1) }
    }
}

fn name(block: usize) -> ParamName {
    Layer::Prompt.whole().in_block(block)
}

impl VisualPromptSettings {
    /// The name and shape of every prompt in a backbone.
    pub fn shapes(&self, spec: &VitSpec) -> Shapes {
        self.blocks(spec).map(|block| (name(block), vec![self.tokens, spec.width])).collect()
    }

    /// Adds the prompts to the parameters of a backbone, each from a uniform distribution over ±√(6 / (3 patch² + d)), as
    /// VPT draws them.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn insert(&self, spec: &VitSpec, params: &mut Params, seed: u64) -> Result<()> {
        let bound = (6.0 / (3 * spec.patch.size * spec.patch.size + spec.width) as f64).sqrt();
        let device = params.tensor(Layer::PatchEmbed.weight())?.device().clone();
        for block in self.blocks(spec) {
            let mut stream = Stream::new(seed, Purpose::Init, &[1, block as u64, 0]);
            let values = (0..self.tokens * spec.width).map(|_| stream.range(-bound, bound) as f32).collect();
            params.insert(name(block), Tensor::from_vec(values, (self.tokens, spec.width), &device)?);
        }
        Ok(())
    }

    /// The blocks that have prompts of their own.
    fn blocks(&self, spec: &VitSpec) -> Range<usize> {
        0..if self.deep { spec.depth } else { 1 }
    }
}
