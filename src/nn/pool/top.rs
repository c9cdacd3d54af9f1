//! The mean of the largest values, a compromise between maximum and mean.

use super::TokenPool;
use candle_core::{DType, Result, Tensor};

/// The mean, value by value, of the largest of one token in [`Top::ONE_IN`], at least one.
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
pub fn top_of(tokens: &Tensor, count: usize) -> Result<Tensor> {
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
