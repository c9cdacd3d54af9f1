//! Gated attention pooling for bags (Ilse et al. 2018): which tokens count is learnt.

use super::TokenPool;
use crate::nn::Linear;
use candle_core::{DType, Result, Tensor};

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

    /// How much each token counts: tokens (B, N, d) to (B, N, 1) in f32, whose sum over the tokens is 1. The products run in
    /// the type of their weights.
    ///
    /// # Errors
    /// When the width is not d.
    pub fn attention(&self, tokens: &Tensor) -> Result<Tensor> {
        // The logistic function by tanh, whose gradient is finite everywhere.
        let gate = (((wide(&self.u.forward(tokens)?)? * 0.5)?.tanh()? + 1.0)? * 0.5)?;
        let scores = wide(&self.w.forward(&(wide(&self.v.forward(tokens)?)?.tanh()? * gate)?)?)?;
        let exponentials = scores.broadcast_sub(&scores.detach().max_keepdim(1)?)?.exp()?;
        exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)
    }
}

fn wide(values: &Tensor) -> Result<Tensor> {
    values.to_dtype(DType::F32)
}

impl TokenPool for GatedPool {
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        tokens.broadcast_mul(&self.attention(tokens)?)
    }

    /// The attention weights, taken as constants.
    fn slopes(&self, tokens: &Tensor) -> Result<Tensor> {
        self.attention(tokens)?.detach().broadcast_as(tokens.shape())?.contiguous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn weights_in_half_pool_tokens_in_f32() {
        let values = |shape: &[usize], step: f32| {
            let values = (0..shape.iter().product()).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let pool = |dtype: DType| {
            let layer = |shape: &[usize], step: f32| {
                let bias = values(&shape[..1], step).to_dtype(dtype).unwrap();
                Linear::new(values(shape, step).to_dtype(dtype).unwrap(), Some(bias))
            };
            GatedPool { v: layer(&[6, 4], 0.7), u: layer(&[6, 4], 1.1), w: layer(&[1, 6], 1.7) }
        };
        let tokens = values(&[2, 5, 4], 0.9);
        let pooled = |dtype: DType| pool(dtype).forward(&tokens).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let exact: Vec<f32> = pooled(DType::F32);
        for dtype in [DType::BF16, DType::F16] {
            let largest = exact.iter().zip(pooled(dtype)).map(|(a, b): (&f32, f32)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest < 0.02, "{dtype:?}: {largest}");
        }
    }
}
