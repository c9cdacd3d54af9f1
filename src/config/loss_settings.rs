//! What `[train]` says about the loss and about rare classes.

use crate::forms;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "loss", rename_all = "snake_case")]
#[schemars(extend("default" = "cross_entropy"), transform = forms::side_by_side)]
pub enum LossSettings {
    /// Plain cross-entropy.
    CrossEntropy,
    /// Counts images less that are classified well already (Lin et al. 2017).
    Focal {
        /// For `focal`: the exponent of (1 - p), larger = images that are classified well already count less.
        /// Default: 2.
        #[serde(rename = "focal_gamma")]
        #[schemars(range(min = 0.0, max = 10.0))]
        gamma: f64,
    },
    /// Asks for a larger margin of rare classes, by their share of the training images (Menon et al. 2021).
    LogitAdjusted {
        /// For `logit_adjusted`: the factor of the logarithms of the classes' shares. Default: 1.
        #[schemars(range(min = 0.0, max = 10.0))]
        tau: f64,
    },
}

/// Weights of the classes in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "class_weights", rename_all = "snake_case")]
#[schemars(extend("default" = "none"), transform = forms::side_by_side)]
pub enum LossWeights {
    /// All 1.
    None,
    /// Inverse frequency: n / (classes x n of the class).
    #[serde(alias = "inverse")]
    #[schemars(extend("x-alias" = "inverse"))]
    Balanced,
    /// The inverse of the effective number of images (Cui et al. 2019): milder than inverse frequency.
    // (1 - beta^n) / (1 - beta)
    Effective {
        /// For `effective`: from 0 (no weights) towards 1 (inverse frequency). Default: 0.999.
        #[serde(rename = "effective_beta")]
        #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
        beta: f64,
    },
}

/// `train.sampler`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// Every image once.
    Shuffle,
    /// As many images, but every class equally often: images of rare classes repeat.
    Balanced,
}
