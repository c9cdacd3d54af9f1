//! The maximum over the tokens.

use super::{TokenPool, top_of};
use candle_core::{Result, Tensor};

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
