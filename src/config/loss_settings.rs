//! What `[train]` may say about the loss and about rare classes: as written, and with the keys of each choice.

use serde::{Deserialize, Serialize};

/// `train.loss`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Plain cross-entropy.
    CrossEntropy,
    /// Counts images less that are classified well already (Lin et al. 2017).
    Focal,
    /// Asks for a larger margin of rare classes, by their share of the training images (Menon et al. 2021).
    LogitAdjusted,
}

/// `train.class_weights`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossWeightsKind {
    /// All 1.
    None,
    /// Inverse frequency: n / (classes x n of the class).
    Balanced,
    /// Another word for `balanced`.
    Inverse,
    /// The inverse of the effective number of images (Cui et al. 2019): milder than inverse frequency.
    Effective,
}

/// `train.loss`, with the keys of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossSettings {
    /// Plain cross-entropy.
    CrossEntropy,
    /// Cross-entropy times (1 - p)^gamma (Lin et al. 2017).
    Focal {
        /// The exponent.
        gamma: f64,
    },
    /// Cross-entropy of logits plus tau times the logarithms of the classes' shares (Menon et al. 2021).
    LogitAdjusted {
        /// The strength.
        tau: f64,
    },
}

/// `train.class_weights`, with the key of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeights {
    /// All 1.
    None,
    /// Inverse frequency: n / (classes x n of the class).
    Balanced,
    /// The inverse of the effective number of samples, (1 - beta^n) / (1 - beta) (Cui et al. 2019).
    Effective {
        /// How far from none (0) to inverse frequency (1).
        beta: f64,
    },
}

/// `train.sampler`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// Every image once.
    Shuffle,
    /// As many images, but every class equally often: images of rare classes repeat.
    Balanced,
}
