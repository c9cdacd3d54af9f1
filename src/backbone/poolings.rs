//! The poolings by their names, and the shapes of what they learn.

use super::name::{Layer, ParamName};
use crate::config::{PoolChoice, TilePool};
use crate::nn::pool::{GatedPool, Gem, LogSumExp, Max, Mean, Stats, TokenPool, Top};
use std::sync::Arc;

/// How the tokens after the last block become the features that feed the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The class token.
    Cls,
    /// The mean of the patch tokens, without class token and registers.
    Avg,
    /// The class token, then the mean of the patch tokens: twice the width (`DINOv2` in transformers).
    ClsAvg,
    /// The mean of the tokens before the patches: class and distillation token (Touvron et al. 2020), or several class tokens.
    Distilled,
    /// Attention of a learned query over the patch tokens, with an MLP of its own (`SigLIP`).
    Attention,
    /// The maximum of the patch tokens.
    Max,
    /// Their log-sum-exp.
    Lse,
    /// The mean of the largest among them.
    Topk,
    /// Their generalised mean.
    Gem,
    /// Their mean, maximum and standard deviation: three times the width.
    Stats,
    /// Gated attention over the patch tokens, which the backbone does not have and training learns.
    Gated,
    /// The largest Mahalanobis distance of a patch token, from those of training images.
    Mahalanobis,
}

impl Pool {
    /// The pooling that `model.pool` names; none where that is the backbone's own, or still to be chosen.
    pub fn named(choice: PoolChoice) -> Option<Self> {
        match choice {
            PoolChoice::Backbone | PoolChoice::Auto => None,
            PoolChoice::Cls => Some(Self::Cls),
            PoolChoice::Avg => Some(Self::Avg),
            PoolChoice::ClsAvg => Some(Self::ClsAvg),
            PoolChoice::Max => Some(Self::Max),
            PoolChoice::Lse => Some(Self::Lse),
            PoolChoice::Topk => Some(Self::Topk),
            PoolChoice::Gem => Some(Self::Gem),
            PoolChoice::Stats => Some(Self::Stats),
            PoolChoice::Attention => Some(Self::Gated),
            PoolChoice::Mahalanobis => Some(Self::Mahalanobis),
        }
    }

    /// The pooling of patches that does the same as one of tiles; none while that is still to be chosen.
    pub fn of_tiles(choice: TilePool) -> Option<Self> {
        match choice {
            TilePool::Avg => Some(Self::Avg),
            TilePool::Max => Some(Self::Max),
            TilePool::Lse => Some(Self::Lse),
            TilePool::Topk => Some(Self::Topk),
            TilePool::Gem => Some(Self::Gem),
            TilePool::Stats => Some(Self::Stats),
            TilePool::Attention => Some(Self::Gated),
            TilePool::Auto => None,
        }
    }

    /// The layer, where it reads the patch tokens alone and has no parameters.
    pub fn plain(self) -> Option<Arc<dyn TokenPool>> {
        match self {
            Self::Avg => Some(Arc::new(Mean)),
            Self::Max => Some(Arc::new(Max)),
            Self::Lse => Some(Arc::new(LogSumExp)),
            Self::Topk => Some(Arc::new(Top)),
            Self::Gem => Some(Arc::new(Gem)),
            Self::Stats => Some(Arc::new(Stats)),
            Self::Cls | Self::ClsAvg | Self::Distilled | Self::Attention | Self::Gated | Self::Mahalanobis => None,
        }
    }

    /// Whether no pretrained model has it, so that it is none of those that other libraries' classes know. A layer norm
    /// that the backbone has behind its own pooling comes before these, where it normalises what they compare.
    pub fn is_added(self) -> bool {
        use Pool::{Gated, Gem, Lse, Mahalanobis, Max, Stats, Topk};
        matches!(self, Max | Lse | Topk | Gem | Stats | Gated | Mahalanobis)
    }

    /// Width of the features from tokens of `width`.
    pub fn features(self, width: usize) -> usize {
        match self {
            Self::ClsAvg => 2 * width,
            Self::Mahalanobis => 1,
            _ => self.plain().map_or(width, |pool| pool.features(width)),
        }
    }
}

/// The layers of gated attention (tanh, gate, scores), over the patches of an image and over its tiles.
pub(super) const OF_PATCHES: [Layer; 3] = [Layer::GatedV, Layer::GatedU, Layer::GatedW];
pub(super) const OF_TILES: [Layer; 3] = [Layer::TileV, Layer::TileU, Layer::TileW];

/// The parameters of gated attention over tokens of `width`.
pub(super) fn gated_shapes([v, u, w]: [Layer; 3], width: usize) -> Vec<(ParamName, Vec<usize>)> {
    let hidden = GatedPool::HIDDEN;
    let gate = |layer: Layer| [(layer.weight(), vec![hidden, width]), (layer.bias(), vec![hidden])];
    gate(v).into_iter().chain(gate(u)).chain([(w.weight(), vec![1, hidden])]).collect()
}

/// The poolings of tiles that have nothing to learn.
pub const TILE_POOLS: [TilePool; 6] =
    [TilePool::Max, TilePool::Avg, TilePool::Lse, TilePool::Topk, TilePool::Gem, TilePool::Stats];

/// How many times as wide as the features of a tile those of its image are.
pub fn tile_factor(pool: TilePool) -> usize {
    Pool::of_tiles(pool).map_or_else(|| TILE_POOLS.into_iter().map(tile_factor).sum(), |pool| pool.features(1))
}

/// The parameters of Mahalanobis distances of tokens of `width`.
pub(super) fn whitening_shapes(width: usize) -> [(ParamName, Vec<usize>); 2] {
    [(Layer::Whitening.weight(), vec![width, width]), (Layer::Whitening.bias(), vec![width])]
}

/// The linear layers of the attention pooling, with their shapes in terms of width and MLP width.
pub(super) fn attention_linears(width: usize, hidden: usize) -> [(Layer, [usize; 2]); 5] {
    [
        (Layer::PoolQ, [width, width]),
        (Layer::PoolKv, [2 * width, width]),
        (Layer::PoolProj, [width, width]),
        (Layer::PoolFc1, [hidden, width]),
        (Layer::PoolFc2, [width, hidden]),
    ]
}
