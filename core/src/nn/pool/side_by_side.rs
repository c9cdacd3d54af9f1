//! Several poolings side by side, for a choice among them.

use super::TokenPool;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// The features of each pooling, one after another in their order.
#[derive(Debug, Clone)]
pub struct SideBySide(pub Vec<Arc<dyn TokenPool>>);

impl TokenPool for SideBySide {
    fn features(&self, width: usize) -> usize {
        self.0.iter().map(|pool| pool.features(width)).sum()
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        Tensor::cat(&self.0.iter().map(|pool| pool.forward(tokens)).collect::<Result<Vec<_>>>()?, 1)
    }

    fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        Tensor::cat(&self.0.iter().map(|pool| pool.contributions(tokens)).collect::<Result<Vec<_>>>()?, 2)
    }
}
