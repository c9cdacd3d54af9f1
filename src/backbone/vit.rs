//! The pre-norm vision transformer (Dosovitskiy et al. 2020) in the one form that all families share.

use super::params::Params;
use super::pool::Pooling;
use super::spec::VitSpec;
use crate::nn::{Activation, Attention, LayerNorm, LayerScale, Linear, Mode, PatchEmbed, drop_path, swiglu};
use candle_core::{Result, Tensor};

/// A backbone ready to run, over tensors that may or may not learn.
#[derive(Debug, Clone)]
pub struct Vit {
    patch_embed: PatchEmbed,
    /// Class token, distillation token and registers, each (1, n, d).
    prefix: Vec<Tensor>,
    positions: Tensor,
    positioned_prefix: usize,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
    pooling: Pooling,
    fc_norm: Option<LayerNorm>,
    prefix_tokens: usize,
}

impl Vit {
    /// Builds the layers over `params`. `drop_path` gives the stochastic depth rate of each block; blocks without one
    /// never drop.
    ///
    /// # Errors
    /// When a parameter that `spec` asks for is absent.
    pub fn new(spec: &VitSpec, params: &Params, drop_path: &[f64]) -> Result<Self> {
        let norm = |present: bool, name: &str| present.then(|| layer_norm(spec, params, name)).transpose();
        let patch_bias = spec.patch_bias.then(|| params.tensor("patch_embed.proj.bias")).transpose()?;
        let block = |index: usize| Block::new(spec, params, index, drop_path.get(index).copied().unwrap_or(0.0));
        Ok(Self {
            patch_embed: PatchEmbed::new(&params.tensor("patch_embed.proj.weight")?, patch_bias)?,
            prefix: ["cls_token", "dist_token", "reg_token"].iter().filter_map(|name| params.get(name)).collect(),
            positions: params.tensor("pos_embed")?,
            positioned_prefix: spec.positioned_prefix,
            norm_pre: norm(spec.norm_pre, "norm_pre")?,
            blocks: (0..spec.depth).map(block).collect::<Result<_>>()?,
            norm: norm(spec.norm, "norm")?,
            pooling: Pooling::new(spec, params)?,
            fc_norm: norm(spec.fc_norm, "fc_norm")?,
            prefix_tokens: spec.prefix_tokens(),
        })
    }

    /// pixels (B, 3, S, S) to tokens (B, T, d) before the first block.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels)?; // (B, N, d)
        let (batch, _, width) = patches.dims3()?;
        let k = self.positioned_prefix;
        let mut tokens = Vec::with_capacity(3);
        if !self.prefix.is_empty() {
            let prefix = Tensor::cat(&self.prefix, 1)?; // (1, P, d)
            let others = prefix.dim(1)? - k;
            if k > 0 {
                let positioned = (prefix.narrow(1, 0, k)? + self.positions.narrow(1, 0, k)?)?;
                tokens.push(positioned.broadcast_as((batch, k, width))?);
            }
            if others > 0 {
                tokens.push(prefix.narrow(1, k, others)?.broadcast_as((batch, others, width))?);
            }
        }
        tokens.push(patches.broadcast_add(&self.positions.narrow(1, k, self.positions.dim(1)? - k)?)?);
        let x = Tensor::cat(&tokens, 1)?;
        match &self.norm_pre {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }

    /// pixels (B, 3, S, S) to the tokens (B, T, d) that block `end` reads; with `end` = depth, those after all blocks.
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn prefix(&self, pixels: &Tensor, end: usize, mode: Mode<'_>) -> Result<Tensor> {
        let x = self.embed(pixels)?;
        self.blocks.iter().take(end).try_fold(x, |x, block| block.forward(&x, mode))
    }

    /// The tokens (B, T, d) that block `start` reads, to the features that feed the head.
    ///
    /// # Errors
    /// When the tokens do not have the backbone's width.
    pub fn suffix(&self, tokens: &Tensor, start: usize, mode: Mode<'_>) -> Result<Tensor> {
        let x = self.blocks.iter().skip(start).try_fold(tokens.clone(), |x, block| block.forward(&x, mode))?;
        let pooled = self.pooling.forward(&self.normed(&x)?)?;
        match &self.fc_norm {
            Some(norm) => norm.forward(&pooled),
            None => Ok(pooled),
        }
    }

    /// The tokens after each of the last `blocks` blocks, normed as the last one's are (DINOv2's
    /// `get_intermediate_layers`).
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn last_tokens(&self, pixels: &Tensor, blocks: usize, mode: Mode<'_>) -> Result<Vec<Tensor>> {
        let first = self.blocks.len().saturating_sub(blocks);
        let mut x = self.prefix(pixels, first, mode)?;
        let mut tokens = Vec::with_capacity(blocks);
        for block in &self.blocks[first..] {
            x = block.forward(&x, mode)?;
            tokens.push(self.normed(&x)?);
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
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => Ok(x.clone()),
        }
    }

    /// Tokens before the patches.
    pub(super) fn prefix_tokens(&self) -> usize {
        self.prefix_tokens
    }
}

/// The layer norm of that canonical name.
pub(super) fn layer_norm(spec: &VitSpec, params: &Params, name: &str) -> Result<LayerNorm> {
    let weight = params.tensor(&format!("{name}.weight"))?;
    Ok(LayerNorm::new(weight, params.tensor(&format!("{name}.bias"))?, spec.eps))
}

/// Attention and MLP, each a residual branch behind a layer norm.
#[derive(Debug, Clone)]
struct Block {
    norm1: LayerNorm,
    attention: Attention,
    scale1: Option<LayerScale>,
    norm2: LayerNorm,
    fc1: Linear,
    /// None for a `SwiGLU`.
    activation: Option<Activation>,
    fc2: Linear,
    scale2: Option<LayerScale>,
    drop_path: f64,
    index: u64,
}

impl Block {
    fn new(spec: &VitSpec, params: &Params, index: usize, drop_path: f64) -> Result<Self> {
        let at = |name: &str| format!("blocks.{index}.{name}");
        let linear = |name: &str| -> Result<Linear> {
            let weight = params.tensor(&at(&format!("{name}.weight")))?;
            Ok(Linear::new(weight, params.get(&at(&format!("{name}.bias")))))
        };
        let scale = |name: &str| params.get(&at(&format!("{name}.gamma"))).map(LayerScale::new);
        Ok(Self {
            norm1: layer_norm(spec, params, &at("norm1"))?,
            attention: Attention::new(linear("attn.qkv")?, linear("attn.proj")?, spec.heads),
            scale1: scale("ls1"),
            norm2: layer_norm(spec, params, &at("norm2"))?,
            fc1: linear("mlp.fc1")?,
            activation: (!spec.gated).then_some(spec.activation),
            fc2: linear("mlp.fc2")?,
            scale2: scale("ls2"),
            drop_path,
            index: index as u64,
        })
    }

    /// x (B, T, d) to (B, T, d).
    fn forward(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let attended = self.attention.forward(&self.norm1.forward(x)?)?;
        let x = self.residual(x, attended, self.scale1.as_ref(), 0, mode)?;
        let hidden = self.fc1.forward(&self.norm2.forward(&x)?)?;
        let hidden = match self.activation {
            Some(activation) => activation.forward(&hidden)?,
            None => swiglu(&hidden)?,
        };
        self.residual(&x, self.fc2.forward(&hidden)?, self.scale2.as_ref(), 1, mode)
    }

    fn residual(
        &self,
        x: &Tensor,
        branch: Tensor,
        scale: Option<&LayerScale>,
        which: u64,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let branch = match scale {
            Some(scale) => scale.forward(&branch)?,
            None => branch,
        };
        x + drop_path(&branch, self.drop_path, 2 * self.index + which, mode)?
    }
}
