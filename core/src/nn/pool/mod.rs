//! Poolings of tokens, or of the tiles of an image, whose features are sums over what they pool: what each token contributes
//! to each feature is known exactly, and so, with a linear head, is the evidence for a class at each place.
//!
//! They are compositions of candle's differentiable operations on tokens in f32; `backbone::Pooling` converts the tokens of a
//! model that runs in half precision. A pooling reads each token once, which costs next to nothing beside a block.

mod gated;
mod plain;
mod side_by_side;

pub use gated::GatedPool;
pub use plain::{Gem, LogSumExp, Mahalanobis, Max, Mean, Stats, Top};
pub use side_by_side::SideBySide;

use candle_core::{Result, Tensor, Var};
use std::fmt::Debug;

/// From tokens (B, N, d) to features (B, w). A new one is an implementation in this folder, a choice of `model.pool`, a line in
/// `Pool::plain` (`backbone/poolings.rs`), and its operators in `export/onnx/pool.rs`.
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

    /// How fast each feature grows with the token value that it is made of: tokens (B, N, d) to (B, N, w). Where w is a
    /// multiple of d, value i makes the features i, d + i, 2 d + i, and so on.
    ///
    /// # Errors
    /// When there are no tokens.
    fn slopes(&self, tokens: &Tensor) -> Result<Tensor> {
        let width = tokens.dim(2)?;
        let leaf = Var::from_tensor(tokens)?;
        let features = self.forward(leaf.as_tensor())?;
        let of_part = |part: usize| match features.narrow(1, part * width, width)?.sum_all()?.backward()?.remove(&leaf)
        {
            Some(slopes) => Ok(slopes.detach()),
            None => tokens.zeros_like(),
        };
        Tensor::cat(&(0..features.dim(1)? / width).map(of_part).collect::<Result<Vec<_>>>()?, 2)
    }
}
