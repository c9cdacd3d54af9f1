//! The generalised mean (`GeM`, Radenović et al. 2018).

use super::TokenPool;
use candle_core::{Result, Tensor};

/// mean(max(x, ε)³)^(1/3) of each value over the tokens: the authors' start, p = 3, where p stays.
#[derive(Debug, Clone, Copy)]
pub struct Gem;

impl Gem {
    /// ε, below which a value counts as it.
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
