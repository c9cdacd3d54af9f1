//! From the tokens of the last block to the features that feed the head.
//!
//! The rule is: what the library feeds to its classifier. So a distilled `DeiT` gives the mean of its two tokens (timm's
//! `pre_logits`), `DINOv2` in transformers the class token beside the mean patch, `SigLIP` its attention pooling.

use super::block::layer_norm;
use super::name::Layer;
use super::params::Params;
use super::spec::{Pool, VitSpec};
use crate::nn::{Activation, AttentionPool};
use candle_core::{Result, Tensor};

/// The pooling layer of a backbone.
#[derive(Debug, Clone)]
pub struct Pooling {
    pool: Pool,
    /// Tokens before the patches.
    prefix: usize,
    attention: Option<AttentionPool>,
}

impl Pooling {
    /// Builds the layer over `params`.
    ///
    /// # Errors
    /// When a parameter of the attention pooling is absent.
    pub fn new(spec: &VitSpec, params: &Params) -> Result<Self> {
        let attention = (spec.pooling.pool == Pool::Attention).then(|| attention_pool(spec, params)).transpose()?;
        Ok(Self { pool: spec.pooling.pool, prefix: spec.prefix_tokens(), attention })
    }

    /// Tokens before the patches.
    pub(super) fn prefix(&self) -> usize {
        self.prefix
    }

    /// How many of the first tokens it reads; none when it reads them all.
    pub(super) fn reads(&self) -> Option<usize> {
        match self.pool {
            Pool::Cls => Some(1),
            Pool::Distilled => Some(2),
            Pool::Avg | Pool::ClsAvg | Pool::Attention => None,
        }
    }

    /// tokens (B, T, d) to features: (B, d), or (B, 2d) for [`Pool::ClsAvg`].
    ///
    /// # Errors
    /// When there are fewer tokens than the architecture has.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        match (self.pool, &self.attention) {
            (Pool::Cls, _) => token(tokens, 0),
            (Pool::ClsAvg, _) => Tensor::cat(&[token(tokens, 0)?, patch_mean(tokens, self.prefix)?], 1),
            (Pool::Distilled, _) => (token(tokens, 0)? + token(tokens, 1)?)? * 0.5,
            (Pool::Attention, Some(attention)) => attention.forward(&patches(tokens, self.prefix)?),
            (Pool::Avg | Pool::Attention, _) => patch_mean(tokens, self.prefix),
        }
    }

    /// Where it looks: tokens (B, T, d) after the final norm to the share of each in the features (B, T). The heads of an
    /// attention pooling count alike.
    ///
    /// # Errors
    /// When there are fewer tokens than the architecture has.
    pub(super) fn shares(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.attention {
            Some(attention) => {
                let looks = attention.weights(&patches(tokens, self.prefix)?)?.mean(1)?; // (B, N)
                looks.pad_with_zeros(1, self.prefix, 0)
            }
            None => fixed_shares(self.pool, self.prefix, tokens),
        }
    }
}

/// The share of each token (B, T) in what a pooling without parameters makes of `tokens` (B, T, d).
pub(super) fn fixed_shares(pool: Pool, prefix: usize, tokens: &Tensor) -> Result<Tensor> {
    let (batch, count, _) = tokens.dims3()?;
    let patch = 1.0 / count.saturating_sub(prefix).max(1) as f32;
    let share = |token: usize| match pool {
        Pool::Cls => f32::from(token == 0),
        Pool::Distilled => 0.5 * f32::from(token < 2),
        Pool::Avg | Pool::Attention => f32::from(token >= prefix) * patch,
        Pool::ClsAvg => 0.5 * (f32::from(token == 0) + f32::from(token >= prefix) * patch),
    };
    let row: Vec<f32> = (0..count).map(share).collect();
    Tensor::from_vec(row, (1, count), tokens.device())?.to_dtype(tokens.dtype())?.broadcast_as((batch, count))
}

/// Tokens (B, T, d) to the one at `index` (B, d); the class token is the first.
pub(super) fn token(tokens: &Tensor, index: usize) -> Result<Tensor> {
    tokens.narrow(1, index, 1)?.squeeze(1)?.contiguous()
}

/// Tokens (B, T, d) to the mean (B, d) of those after the first `prefix`.
pub(super) fn patch_mean(tokens: &Tensor, prefix: usize) -> Result<Tensor> {
    patches(tokens, prefix)?.mean(1)
}

fn patches(tokens: &Tensor, prefix: usize) -> Result<Tensor> {
    tokens.narrow(1, prefix, tokens.dim(1)? - prefix)
}

fn attention_pool(spec: &VitSpec, params: &Params) -> Result<AttentionPool> {
    let linear = |layer: Layer| params.linear(layer.weight());
    Ok(AttentionPool {
        latent: params.tensor(Layer::PoolLatent.whole())?,
        q: linear(Layer::PoolQ)?,
        kv: linear(Layer::PoolKv)?,
        proj: linear(Layer::PoolProj)?,
        norm: layer_norm(params, Layer::PoolNorm.weight(), spec.eps)?,
        fc1: linear(Layer::PoolFc1)?,
        activation: spec.mlp.activation().unwrap_or(Activation::Gelu),
        fc2: linear(Layer::PoolFc2)?,
        heads: spec.attention.heads,
    })
}
