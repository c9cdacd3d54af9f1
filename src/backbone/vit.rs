//! The pre-norm vision transformer (Dosovitskiy et al. 2020) in the one form that all families share.

mod evidence;
mod patches;
mod rollout;

pub use rollout::Rollout;

use super::attention_places::AttentionPlaces;
use super::block::{self, Block};
use super::block_run::SavedValues;
use super::lora::Lora;
use super::name::Layer;
use super::params::Params;
use super::pool::{Pooling, of_tiles};
use super::segment::Segment;
use super::spec::VitSpec;
use super::visual_prompts::VisualPrompts;
use crate::nn::pool::TokenPool;
use crate::nn::{LayerNorm, Mode, PatchEmbed};
use crate::size::Size;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// A block that runs without a graph; see `block_run.rs`.
pub struct PlainBlock<'a> {
    block: &'a Block,
    /// Tokens that its arithmetic gives, learnt ones included.
    rows: usize,
    index: usize,
    prompts: &'a VisualPrompts,
}

impl PlainBlock<'_> {
    /// x (B, T, d) to the tokens that go on (B, R, d), and what backward needs.
    ///
    /// # Errors
    /// When x has another width.
    pub fn forward(&self, x: &Tensor, mode: Mode<'_>) -> Result<(Tensor, SavedValues)> {
        let x = self.prompts.join(self.index, x)?.detach();
        let (output, saved) = self.block.forward_plain(&x, self.rows, mode)?;
        Ok((self.prompts.leave(self.index, &output)?, saved))
    }

    /// From the gradient of the output to that of the input, if it is `wanted`; the parameters' own are left in `store`.
    ///
    /// # Errors
    /// When the gradient has another shape than the output.
    pub fn backward(
        &self,
        kept: SavedValues,
        dy: &Tensor,
        wanted: bool,
        store: &mut GradStore,
    ) -> Result<Option<Tensor>> {
        let dy = self.prompts.leave_backward(self.index, dy)?;
        let wanted = wanted || self.prompts.joining(self.index).is_some();
        let dx = self.block.backward_plain(kept, &dy, wanted, store)?;
        dx.map(|dx| self.prompts.join_backward(self.index, &dx, store)).transpose()
    }
}

/// A backbone ready to run, over tensors that may or may not be trained.
#[derive(Debug, Clone)]
pub struct Vit {
    patch_embed: PatchEmbed,
    /// Patches down and across.
    grid: Size,
    patch_norm: Option<LayerNorm>,
    /// Class token, distillation token and registers, each (1, n, d).
    prefix: Vec<Tensor>,
    /// Embeddings of positions (1, k + N, d), where they are learnt.
    positions: Option<Tensor>,
    /// Any tensor of the type and on the device of the tokens.
    like: Tensor,
    positioned_prefix: usize,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<Block>,
    prompts: VisualPrompts,
    norm: Option<LayerNorm>,
    pooling: Pooling,
    /// Every pooling that has nothing to learn, the own one first.
    poolings: Vec<Pooling>,
    fc_norm: Option<LayerNorm>,
    tile_pool: Arc<dyn TokenPool>,
}

impl Vit {
    /// Builds the layers over `params`, with the learnt prompts that are in them. `drop_path` gives the stochastic depth
    /// rate of each block; blocks without one never drop.
    ///
    /// # Errors
    /// When a parameter that `spec` asks for is absent.
    pub fn new(spec: &VitSpec, params: &Params, drop_path: &[f64]) -> Result<Self> {
        let norm =
            |present: bool, layer: Layer| present.then(|| block::norm(params, layer.weight(), spec.norms)).transpose();
        let patch_bias = spec.patch.bias.then(|| params.tensor(Layer::PatchEmbed.bias())).transpose()?;
        let prefix = [Layer::ClsToken, Layer::DistToken, Layer::RegToken];
        let prompts = VisualPrompts::of(spec, params);
        let of_block = spec.block();
        let places = AttentionPlaces::new(spec, &prompts)?;
        let block = |index: usize| {
            let block = Block::new(&of_block, params, index, drop_path.get(index).copied().unwrap_or(0.0))?;
            places.place(block, params, index)
        };
        Ok(Self {
            patch_embed: PatchEmbed::new(&params.tensor(Layer::PatchEmbed.weight())?, patch_bias)?,
            grid: spec.grid(),
            patch_norm: norm(spec.patch.norm, Layer::PatchNorm)?,
            prefix: prefix.iter().filter_map(|token| params.get(token.whole())).collect(),
            positions: params.get(Layer::PosEmbed.whole()),
            like: params.tensor(Layer::Norm1.weight().in_block(0))?,
            positioned_prefix: spec.positions.prefix(),
            norm_pre: norm(spec.norm_pre, Layer::NormPre)?,
            blocks: (0..spec.depth).map(block).collect::<Result<_>>()?,
            prompts,
            norm: norm(spec.pooling.norm, Layer::Norm)?,
            pooling: Pooling::new(spec, spec.pooling.pool, params)?,
            poolings: spec
                .poolings()
                .into_iter()
                .map(|(_, pool)| Pooling::new(spec, pool, params))
                .collect::<Result<_>>()?,
            fc_norm: norm(spec.pooling.fc_norm, Layer::FcNorm)?,
            tile_pool: of_tiles(spec.pooling.tiles, params)?,
        })
    }

    /// What joins the features of the tiles of an image: (1, T, w) to those of the image.
    pub fn tile_pool(&self) -> &dyn TokenPool {
        &*self.tile_pool
    }

    /// Adds the adapters that `lora` has in `params`.
    ///
    /// # Errors
    /// When a factor is absent.
    pub fn adapted(mut self, lora: &Lora, params: &Params) -> Result<Self> {
        for block in lora.blocks.iter().copied() {
            match self.blocks.get_mut(block) {
                Some(block) => block.adapt(lora, params)?,
                None => candle_core::bail!("there is no block {block} to adapt"),
            }
        }
        Ok(self)
    }

    /// pixels (B, 3, S, S) to tokens (B, T, d) before the first block.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels)?.to_dtype(self.like.dtype())?; // (B, N, d)
        let patches = LayerNorm::forward_if(self.patch_norm.as_ref(), patches)?;
        let (batch, _, width) = patches.dims3()?;
        let positions =
            |first: usize, count: usize| self.positions.as_ref().map(|table| table.narrow(1, first, count)).transpose();
        let k = self.positioned_prefix;
        let mut tokens = Vec::with_capacity(3);
        if !self.prefix.is_empty() {
            let prefix = Tensor::cat(&self.prefix, 1)?; // (1, P, d)
            let others = prefix.dim(1)? - k;
            if let Some(positions) = positions(0, k)?.filter(|_| k > 0) {
                let positioned = (prefix.narrow(1, 0, k)? + positions)?;
                tokens.push(positioned.broadcast_as((batch, k, width))?);
            }
            if others > 0 {
                tokens.push(prefix.narrow(1, k, others)?.broadcast_as((batch, others, width))?);
            }
        }
        tokens.push(match positions(k, patches.dim(1)?)? {
            Some(positions) => patches.broadcast_add(&positions)?,
            None => patches,
        });
        LayerNorm::forward_if(self.norm_pre.as_ref(), Tensor::cat(&tokens, 1)?)
    }

    /// Number of blocks.
    pub(super) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Tokens that go on behind a block on the way to the pooled features: of the last, only those that are read.
    fn rows(&self, index: usize, tokens: usize) -> usize {
        let few = index + 1 == self.blocks.len() && self.prompts.is_empty();
        if few { self.pooling.reads().unwrap_or(tokens) } else { tokens }
    }

    /// Whether all blocks run on plain values.
    pub fn is_plain(&self) -> bool {
        self.blocks.iter().all(|block| block.is_plain(&self.like))
    }

    /// The block of a segment, if it can run on plain values, with the tokens that go on behind it.
    ///
    /// # Errors
    /// When `x` has no tokens.
    pub fn plain_block(&self, segment: Segment, x: &Tensor) -> Result<Option<PlainBlock<'_>>> {
        let Segment::Block(index) = segment else { return Ok(None) };
        let Some(block) = self.blocks.get(index).filter(|block| block.is_plain(x)) else { return Ok(None) };
        let joined = self.prompts.joining(index).map_or(Ok(0), |prompt| prompt.dim(0))?;
        let rows = self.rows(index, x.dim(1)? + joined);
        Ok(Some(PlainBlock { block, rows, index, prompts: &self.prompts }))
    }

    /// One segment of the network, from what the one before it left.
    ///
    /// # Errors
    /// When there is no such block, or `x` does not have the shape the segment reads.
    pub fn run_segment(&self, segment: Segment, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        match segment {
            Segment::Embed => self.embed(x),
            Segment::Block(index) => self.block(index, x, self.rows(index, x.dim(1)?), mode),
            Segment::Pool => self.suffix(x, self.blocks.len(), mode),
            Segment::Head => candle_core::bail!("the head is not a segment of the backbone"),
        }
    }

    /// pixels (B, 3, S, S) to the tokens (B, T, d) that block `end` reads; with `end` = depth, those after all blocks.
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn prefix(&self, pixels: &Tensor, end: usize, mode: Mode<'_>) -> Result<Tensor> {
        (0..end).try_fold(self.embed(pixels)?, |x, block| self.block(block, &x, x.dim(1)?, mode))
    }

    /// One block, from the tokens (B, T, d) that the one before left to the first `rows` of its own (B, rows, d).
    fn block(&self, index: usize, x: &Tensor, rows: usize, mode: Mode<'_>) -> Result<Tensor> {
        let Some(block) = self.blocks.get(index) else {
            candle_core::bail!("there is no block {index} among {}", self.blocks.len());
        };
        if self.prompts.is_empty() {
            return block.forward(x, rows, mode);
        }
        let x = self.prompts.join(index, x)?;
        self.prompts.leave(index, &block.forward(&x, x.dim(1)?, mode)?)
    }

    /// The tokens (B, T, d) that block `start` reads, to the features that feed the head.
    ///
    /// # Errors
    /// When the tokens do not have the backbone's width.
    pub fn suffix(&self, tokens: &Tensor, start: usize, mode: Mode<'_>) -> Result<Tensor> {
        let through = |x: Tensor, block| self.block(block, &x, self.rows(block, x.dim(1)?), mode);
        self.pooled_by(&self.pooling, &(start..self.blocks.len()).try_fold(tokens.clone(), through)?)
    }

    /// The tokens (B, T, d) that the last block left, to the features that feed the head.
    fn pooled_by(&self, pooling: &Pooling, x: &Tensor) -> Result<Tensor> {
        let tokens = self.normed(x)?;
        match &self.fc_norm {
            Some(norm) if pooling.pool.is_added() => pooling.forward(&norm.forward(&tokens)?),
            Some(norm) => norm.forward(&pooling.forward(&tokens)?),
            None => pooling.forward(&tokens),
        }
    }

    /// pixels (B, 3, S, S) to what every pooling without parameters makes of them (B, …).
    pub(super) fn pooled_by_all(&self, pixels: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let x = self.prefix(pixels, self.blocks.len(), mode)?;
        let pooled = self.poolings.iter().map(|pooling| self.pooled_by(pooling, &x)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&pooled, 1)
    }

    /// The tokens after each of the last `blocks` blocks, normed as the last one's are (`DINOv2`'s
    /// `get_intermediate_layers`).
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn last_tokens(&self, pixels: &Tensor, blocks: usize, mode: Mode<'_>) -> Result<Vec<Tensor>> {
        let first = self.blocks.len().saturating_sub(blocks);
        let mut x = self.prefix(pixels, first, mode)?;
        let mut tokens = Vec::with_capacity(blocks);
        for block in first..self.blocks.len() {
            x = self.block(block, &x, x.dim(1)?, mode)?;
            tokens.push(self.normed(&self.prompts.read(block, &x)?)?);
        }
        Ok(tokens)
    }

    /// pixels (B, 3, S, S) to all tokens (B, T, d) after the final norm.
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn tokens(&self, pixels: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.normed(&self.prefix(pixels, self.blocks.len(), mode)?)
    }

    /// pixels (B, 3, S, S) to the features that feed the head, (B, width or, for [`super::Pool::ClsAvg`], 2 · width).
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn features(&self, pixels: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        self.suffix(&self.prefix(pixels, 0, mode)?, 0, mode)
    }

    fn normed(&self, x: &Tensor) -> Result<Tensor> {
        LayerNorm::forward_if(self.norm.as_ref(), x.clone())
    }

    /// Tokens before the patches.
    pub(super) fn prefix_tokens(&self) -> usize {
        self.pooling.prefix
    }
}
