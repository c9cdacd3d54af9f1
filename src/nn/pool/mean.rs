//! The mean of the tokens.

use super::TokenPool;
use candle_core::{Result, Tensor};

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
