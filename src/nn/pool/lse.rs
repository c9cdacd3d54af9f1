//! The logarithm of the mean exponential, a smooth maximum (Pinheiro and Collobert 2015).

use super::TokenPool;
use candle_core::{Result, Tensor};

/// log(mean(exp(r x))) / r of each value over the tokens, with r = [`LogSumExp::SHARPNESS`].
#[derive(Debug, Clone, Copy)]
pub struct LogSumExp;

impl LogSumExp {
    /// r, the authors' own: 0 would be the mean, infinity the maximum.
    pub const SHARPNESS: f64 = 5.0;

    /// exp(r (x - largest)) of tokens (B, N, d), and the largest (B, 1, d).
    fn exponentials(tokens: &Tensor) -> Result<(Tensor, Tensor)> {
        let largest = tokens.detach().max_keepdim(1)?;
        Ok(((tokens.broadcast_sub(&largest)? * Self::SHARPNESS)?.exp()?, largest))
    }
}

impl TokenPool for LogSumExp {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (exponentials, largest) = Self::exponentials(tokens)?;
        (exponentials.mean_keepdim(1)?.log()? / Self::SHARPNESS)?.add(&largest)?.squeeze(1)
    }

    /// By the share of a token in the sum of exponentials, which is its share in the gradient too.
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        let (exponentials, _) = Self::exponentials(tokens)?;
        let shares = exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)?;
        shares.broadcast_mul(&self.forward(tokens)?.unsqueeze(1)?)
    }
}
