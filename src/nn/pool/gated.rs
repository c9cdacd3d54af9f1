//! Gated attention pooling for bags (Ilse et al. 2018): which tokens count is learnt.

use super::TokenPool;
use crate::nn::Linear;
use candle_core::{Result, Tensor};

/// Σ aₙ xₙ over the tokens with a = softmax(w · (tanh(V x + b) ⊙ sigmoid(U x + c))).
#[derive(Debug, Clone)]
pub struct GatedPool {
    /// V and b, (L, d) and (L).
    pub v: Linear,
    /// U and c, (L, d) and (L).
    pub u: Linear,
    /// w, (1, L). A bias of it would change nothing.
    pub w: Linear,
}

impl GatedPool {
    /// L, the authors' own.
    pub const HIDDEN: usize = 128;

    /// How much each token counts: tokens (B, N, d) to (B, N, 1), whose sum over the tokens is 1.
    ///
    /// # Errors
    /// When the width is not d.
    pub fn attention(&self, tokens: &Tensor) -> Result<Tensor> {
        // The logistic function by tanh, whose gradient is finite everywhere.
        let gate = (((self.u.forward(tokens)? * 0.5)?.tanh()? + 1.0)? * 0.5)?;
        let scores = self.w.forward(&(self.v.forward(tokens)?.tanh()? * gate)?)?;
        let exponentials = scores.broadcast_sub(&scores.detach().max_keepdim(1)?)?.exp()?;
        exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)
    }
}

impl TokenPool for GatedPool {
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        tokens.broadcast_mul(&self.attention(tokens)?)
    }
}
