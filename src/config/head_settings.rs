//! What `[train]` may say about a head that starts from texts.

use serde::Serialize;

/// `train.head_pull`: how strongly the directions of the classes are drawn to those of their texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadPull {
    /// Each class as strongly as its texts are right about the training images (Silva-Rodríguez et al. 2024).
    Adaptive,
    /// Every class alike.
    Constant(f64),
}

/// `train.wise_ft`: the mean of the weights before and after training (Wortsman et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WiseFt {
    /// The share of the trained weights is chosen on validation images.
    Chosen,
    /// It is given: 1 = the trained weights alone.
    Share(f64),
}
