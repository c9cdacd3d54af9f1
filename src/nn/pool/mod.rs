//! Poolings of tokens, or of the tiles of an image, whose features are sums over what they pool: what each token gave to
//! each feature is known exactly, and with a linear head the evidence for a class at each place.
//!
//! They are compositions of candle's differentiable operations on tokens in f32, which `backbone::Pooling` makes of those of
//! a model that runs in half: a pooling reads each token once, which is nothing beside a block.

mod gated;
mod plain;

pub use gated::GatedPool;
pub use plain::{Gem, LogSumExp, Mahalanobis, Max, Mean, Stats, Top, top_of};

use crate::config::TilePool;
use candle_core::{Result, Tensor};
use std::fmt::Debug;

/// The pooling of tiles that `preprocess.tiles.pool` names.
pub fn of_tiles(pool: TilePool) -> &'static dyn TokenPool {
    match pool {
        TilePool::Mean => &Mean,
        TilePool::Max => &Max,
        TilePool::Lse => &LogSumExp,
        TilePool::Topk => &Top,
        TilePool::Gem => &Gem,
    }
}

/// From tokens (B, N, d) to features (B, w). A new one is an implementation here, a choice of `model.pool`, a line in
/// `Pool::plain`, and its operators in `export/onnx/pool.rs`.
pub trait TokenPool: Debug + Send + Sync {
    /// w for tokens of `width` values.
    fn features(&self, width: usize) -> usize {
        width
    }

    /// tokens (B, N, d) to features (B, w).
    ///
    /// # Errors
    /// When there are no tokens.
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        self.contributions(tokens)?.sum(1)
    }

    /// What each token gives to each feature: tokens (B, N, d) to (B, N, w), whose sum over the tokens is
    /// [`TokenPool::forward`].
    ///
    /// # Errors
    /// When there are no tokens.
    fn contributions(&self, tokens: &Tensor) -> Result<Tensor>;
}
