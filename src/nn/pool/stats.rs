//! Mean, maximum and standard deviation side by side: what is usual, what is most, and how uneven it is.

use super::{Max, Mean, TokenPool};
use candle_core::{Result, Tensor};

/// The mean, then the maximum, then the standard deviation of each value over the tokens: three times their width.
#[derive(Debug, Clone, Copy)]
pub struct Stats;

impl Stats {
    /// Added to the variance, so that its root has a gradient where all tokens are equal.
    pub const EPS: f64 = 1e-6;

    /// Squared distances from the mean plus ε (B, N, d), and the root of their mean (B, 1, d).
    fn deviations(tokens: &Tensor) -> Result<(Tensor, Tensor)> {
        let squares = (tokens.broadcast_sub(&tokens.mean_keepdim(1)?)?.sqr()? + Self::EPS)?;
        let root = squares.mean_keepdim(1)?.sqrt()?;
        Ok((squares, root))
    }
}

impl TokenPool for Stats {
    fn features(&self, width: usize) -> usize {
        3 * width
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (_, deviation) = Self::deviations(tokens)?;
        Tensor::cat(&[Mean.forward(tokens)?, Max.forward(tokens)?, deviation.squeeze(1)?], 1)
    }

    /// The standard deviation is shared out by what each token adds to the variance.
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        let (squares, deviation) = Self::deviations(tokens)?;
        let uneven = squares.broadcast_div(&(deviation * tokens.dim(1)? as f64)?)?;
        Tensor::cat(&[Mean.contributions(tokens)?, Max.contributions(tokens)?, uneven], 2)
    }
}
