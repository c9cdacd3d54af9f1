//! How unusual the most unusual token is, by the mean and covariance of many.

use super::{Max, TokenPool};
use crate::nn::Linear;
use candle_core::{D, Result, Tensor};

/// The largest Mahalanobis distance of a token, over the square root of its width: 1 for a usual one. The mean and covariance
/// of the tokens are those of training images; flaws are few among them (Rippel et al. 2021, Defard et al. 2021, without
/// their statistics of each position).
#[derive(Debug, Clone)]
pub struct Mahalanobis {
    /// From tokens to values of mean 0 and covariance 1, (d, d) and (d).
    pub whitening: Linear,
}

impl Mahalanobis {
    /// tokens (B, N, d) to the distance of each, (B, N, 1).
    ///
    /// # Errors
    /// When the width is not d.
    fn distances(&self, tokens: &Tensor) -> Result<Tensor> {
        self.whitening.forward(tokens)?.sqr()?.mean_keepdim(D::Minus1)?.sqrt()
    }
}

impl TokenPool for Mahalanobis {
    fn features(&self, _width: usize) -> usize {
        1
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Max.forward(&self.distances(tokens)?)
    }

    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        Max.contributions(&self.distances(tokens)?)
    }
}
