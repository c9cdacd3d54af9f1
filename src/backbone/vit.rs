//! The pre-norm vision transformer (Dosovitskiy et al. 2020) in the one form that all families share.

use super::params::Params;
use super::spec::{Pool, VitSpec};
use crate::nn::{Activation, Attention, LayerNorm, LayerScale, Linear, Mode, PatchEmbed, drop_path};
use candle_core::{Result, Tensor};

/// A backbone ready to run, over tensors that may or may not learn.
#[derive(Debug, Clone)]
pub struct Vit {
    patch_embed: PatchEmbed,
    cls_token: Option<Tensor>,
    registers: Option<Tensor>,
    positions: Tensor,
    positions_cover_prefix: bool,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
    fc_norm: Option<LayerNorm>,
    pool: Pool,
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
            cls_token: params.get("cls_token"),
            registers: params.get("reg_token"),
            positions: params.tensor("pos_embed")?,
            positions_cover_prefix: spec.positions_cover_prefix,
            norm_pre: norm(spec.norm_pre, "norm_pre")?,
            blocks: (0..spec.depth).map(block).collect::<Result<_>>()?,
            norm: norm(spec.norm, "norm")?,
            fc_norm: norm(spec.fc_norm, "fc_norm")?,
            pool: spec.pool,
            prefix_tokens: spec.prefix_tokens(),
        })
    }

    /// pixels (B, 3, S, S) to tokens (B, T, d) before the first block.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patch_embed.forward(pixels)?; // (B, N, d)
        let (batch, _, width) = patches.dims3()?;
        let mut tokens = Vec::with_capacity(3);
        for prefix in [&self.cls_token, &self.registers].into_iter().flatten() {
            tokens.push(prefix.broadcast_as((batch, prefix.dim(1)?, width))?);
        }
        let x = if self.positions_cover_prefix {
            tokens.push(patches);
            Tensor::cat(&tokens, 1)?.broadcast_add(&self.positions)?
        } else {
            tokens.push(patches.broadcast_add(&self.positions)?);
            Tensor::cat(&tokens, 1)?
        };
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

    /// The tokens (B, T, d) that block `start` reads, to the features (B, d) that feed the head.
    ///
    /// # Errors
    /// When the tokens do not have the backbone's width.
    pub fn suffix(&self, tokens: &Tensor, start: usize, mode: Mode<'_>) -> Result<Tensor> {
        let x = self.blocks.iter().skip(start).try_fold(tokens.clone(), |x, block| block.forward(&x, mode))?;
        let pooled = self.pool(&self.normed(&x)?)?;
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

    /// pixels (B, 3, S, S) to the features (B, d) that feed the head.
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

    /// Class token and registers.
    pub(super) fn prefix_tokens(&self) -> usize {
        self.prefix_tokens
    }

    fn pool(&self, tokens: &Tensor) -> Result<Tensor> {
        match self.pool {
            Pool::Cls => cls_token(tokens),
            Pool::Avg => patch_mean(tokens, self.prefix_tokens),
        }
    }
}

/// Tokens (B, T, d) to the class token (B, d).
pub(super) fn cls_token(tokens: &Tensor) -> Result<Tensor> {
    tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()
}

/// Tokens (B, T, d) to the mean (B, d) of those after the first `prefix`.
pub(super) fn patch_mean(tokens: &Tensor, prefix: usize) -> Result<Tensor> {
    tokens.narrow(1, prefix, tokens.dim(1)? - prefix)?.mean(1)
}

fn layer_norm(spec: &VitSpec, params: &Params, name: &str) -> Result<LayerNorm> {
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
    activation: Activation,
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
            activation: spec.activation,
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
        let hidden = self.activation.forward(&self.fc1.forward(&self.norm2.forward(&x)?)?)?;
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
