//! Multi-head attention pooling (Lee et al. 2019; Zhai et al. 2022): one learned query looks at all tokens.
//!
//! `SigLIP`'s head. There is one query an image, so nearly all the work is the product for keys and values, which is a
//! [`Linear`]; the rest is a composition of candle's differentiable operations on every device.

use super::gelu::Activation;
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use super::softmax::softmax;
use candle_core::{Result, Tensor};

/// Pools tokens (B, T, C) to features (B, C): attention of a learned query, then a residual MLP.
#[derive(Debug, Clone)]
pub struct AttentionPool {
    /// The query before its projection, (1, 1, C).
    pub latent: Tensor,
    /// Projects the query, (C, C).
    pub q: Linear,
    /// Projects tokens to keys and values, (2C, C).
    pub kv: Linear,
    /// Projects what was attended, (C, C).
    pub proj: Linear,
    /// Before the MLP.
    pub norm: LayerNorm,
    /// First product of the MLP.
    pub fc1: Linear,
    /// Its activation.
    pub activation: Activation,
    /// Second product of the MLP.
    pub fc2: Linear,
    /// Attention heads; they divide C.
    pub heads: usize,
}

impl AttentionPool {
    /// tokens (B, T, C) to features (B, C).
    ///
    /// # Errors
    /// When the width is not C.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let pooled = self.proj.forward(&self.attend(tokens)?)?;
        let hidden = self.activation.forward(&self.fc1.forward(&self.norm.forward(&pooled)?)?)?;
        pooled + self.fc2.forward(&hidden)?
    }

    /// softmax(q kᵀ / √d) v of the one query: tokens (B, T, C) to (B, C).
    fn attend(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = tokens.dims3()?;
        let [k, v] = self.keys_and_values(tokens)?;
        self.looks(&k)?.matmul(&v)?.reshape((batch, width))
    }

    /// How much the query looks at each token: tokens (B, T, C) to (B, heads, T).
    ///
    /// # Errors
    /// When the width is not C.
    pub fn weights(&self, tokens: &Tensor) -> Result<Tensor> {
        let [k, _] = self.keys_and_values(tokens)?;
        self.looks(&k)?.squeeze(2)
    }

    /// tokens (B, T, C) to keys and values, each (B, heads, T, d).
    fn keys_and_values(&self, tokens: &Tensor) -> Result<[Tensor; 2]> {
        let (batch, count, width) = tokens.dims3()?;
        let kv = self.kv.forward(tokens)?.reshape((batch, count, 2, self.heads, width / self.heads))?;
        let kv = kv.permute((2, 0, 3, 1, 4))?.contiguous()?;
        Ok([kv.get(0)?, kv.get(1)?])
    }

    /// softmax(q kᵀ / √d): keys (B, heads, T, d) to (B, heads, 1, T).
    fn looks(&self, k: &Tensor) -> Result<Tensor> {
        let (batch, heads, _, head_dim) = k.dims4()?;
        let q = self.q.forward(&self.latent)?.reshape((1, heads, 1, head_dim))?;
        let q = (q * (head_dim as f64).powf(-0.5))?.broadcast_as((batch, heads, 1, head_dim))?.contiguous()?;
        softmax(&q.matmul(&k.t()?)?, 1.0)
    }
}
