//! Poolings that learn nothing: mean, maximum and what lies between them.

use super::TokenPool;
use crate::nn::Linear;
use candle_core::{D, DType, Result, Tensor};

/// The mean of each value over the tokens.
#[derive(Debug, Clone, Copy)]
pub struct Mean;

impl TokenPool for Mean {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        tokens.mean(1)
    }

    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        tokens / tokens.dim(1)? as f64
    }
}

/// The maximum of each value over the tokens.
#[derive(Debug, Clone, Copy)]
pub struct Max;

impl TokenPool for Max {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        tokens.max(1)
    }

    /// Each maximum belongs to the token that has it, the first among equals.
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        tokens * top_of(tokens, 1)?
    }
}

/// The logarithm of the mean exponential, a smooth maximum (Pinheiro and Collobert 2015): log(mean(exp(r x))) / r of each
/// value over the tokens, with r = [`LogSumExp::SHARPNESS`].
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

/// The generalised mean (`GeM`, Radenović et al. 2018), mean(max(x, ε)³)^(1/3) of each value over the tokens: p is fixed at 3,
/// where the authors' learnt p starts.
#[derive(Debug, Clone, Copy)]
pub struct Gem;

impl Gem {
    /// ε, the least that a value counts as.
    pub const LEAST: f64 = 1e-6;

    fn cubes(tokens: &Tensor) -> Result<Tensor> {
        let positive = tokens.maximum(Self::LEAST)?;
        positive.sqr()? * positive
    }
}

impl TokenPool for Gem {
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Self::cubes(tokens)?.mean(1)?.powf(1.0 / 3.0)
    }

    /// By the share of a token in the sum of cubes.
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        let cubes = Self::cubes(tokens)?;
        let shares = cubes.broadcast_div(&cubes.sum_keepdim(1)?)?;
        shares.broadcast_mul(&self.forward(tokens)?.unsqueeze(1)?)
    }
}

/// Value by value, the mean of the largest: one token in [`Top::ONE_IN`] counts, and at least one.
#[derive(Debug, Clone, Copy)]
pub struct Top;

impl Top {
    /// One in so many tokens counts.
    pub const ONE_IN: usize = 64;

    /// How many of `tokens` count.
    pub fn count(tokens: usize) -> usize {
        tokens.div_ceil(Self::ONE_IN)
    }
}

impl TokenPool for Top {
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        let count = Self::count(tokens.dim(1)?);
        tokens * (top_of(tokens, count)? / count as f64)?
    }
}

/// 1 where a value is among the `count` largest of its column in tokens (B, N, d), the first among equals, else 0. It is
/// found on the host and has no gradient.
///
/// # Errors
/// When the device fails.
fn top_of(tokens: &Tensor, count: usize) -> Result<Tensor> {
    let (_, rows, width) = tokens.dims3()?;
    let values: Vec<f32> = tokens.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let mut mask = vec![0f32; values.len()];
    let mut order: Vec<usize> = Vec::with_capacity(rows);
    for image in (0..values.len()).step_by((rows * width).max(1)) {
        for column in image..image + width {
            let value = |row: usize| values[column + row * width];
            order.clear();
            order.extend(0..rows);
            if count < rows {
                order.select_nth_unstable_by(count, |&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
            }
            order.iter().take(count).for_each(|&row| mask[column + row * width] = 1.0);
        }
    }
    Tensor::from_vec(mask, tokens.dims(), tokens.device())?.to_dtype(tokens.dtype())
}

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
