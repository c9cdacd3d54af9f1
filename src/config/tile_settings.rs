//! `[preprocess.tiles]`: images cut into squares at their own resolution.

use crate::forms::shown_as_written;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[preprocess.tiles]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TileSettings {
    /// Side of a tile in pixels of the image. Default: that of the model's input, so that no pixel is scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 65_535), extend("x-excludes" = ["scale"]))]
    pub side: Option<usize>,
    /// Pixels of the input for one of the image. It sets the size of a tile in place of `side`: 2 enlarges, 0.5 reduces.
    /// Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 16.0), extend("x-excludes" = ["side"]))]
    pub scale: Option<f64>,
    /// Pixels of the image that neighbouring tiles share at least, up to three quarters of a tile: a flaw that is no larger lies
    /// whole in one of them. Default: an eighth of the side.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 32_767))]
    pub overlap: Option<usize>,
    /// One more tile in the middle of every four: twice as many, whose patches lie between those of the others. A flaw
    /// that is hardly larger than a patch is then seen by one that lies on it.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub staggered: bool,
    /// Places of an image, the most unusual ones, that 16 tiles each look at once more, shifted by quarters of a patch. For
    /// `model.pool = "mahalanobis"` with `model.tile_pool = "max"`.
    #[serde(default)]
    #[schemars(
        range(max = 256),
        extend("default" = 0, "x-only" = [
            { "key": "model.pool", "values": ["mahalanobis"] },
            { "key": "model.tile_pool", "values": ["max"] },
            { "key": "probe.method", "values": ["logistic", "svm", "knn"] }
        ])
    )]
    pub second_look: u32,
}

/// `model.tile_pool`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TilePool {
    /// Their mean: what the image is like all over.
    Avg,
    /// Their maximum, value by value: one tile with a flaw is enough.
    Max,
    /// Their log-sum-exp, a smooth maximum (sharpness 5).
    Lse,
    /// The mean of the largest 1 in 64 of the values: a softer maximum.
    Topk,
    /// Their generalised mean (p = 3).
    Gem,
    /// Their mean, maximum and standard deviation, one after another: three times the width.
    Stats,
    /// Gated attention over the tiles, learnt in training (Ilse et al. 2018).
    Attention,
    /// The one that does best on validation, of all but `attention`; for `vitadapt probe`.
    Auto,
}

shown_as_written!(TilePool);
