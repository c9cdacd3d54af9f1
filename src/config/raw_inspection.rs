//! `[inspection]` and `[unknown]` as they are written.

use super::raw::{ClassName, OneOrMany};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[inspection]`: `costs`, or `max_escape` and `max_overkill`, or neither.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawInspection {
    /// The class of sound parts, or a list of such classes; all others are defects. Without it nothing is said of escapes
    /// and overkill.
    pub good: Option<OneOrMany<ClassName>>,
    /// The share of defective parts in production, for parts per million and expected costs.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub prevalence: Option<f64>,
    /// What mistakes and looks cost: two thresholds are chosen on the validation images for the least expected cost, and
    /// between them a person looks.
    pub costs: Option<RawCosts>,
    /// Choose the two thresholds so that at most this share of the defective validation images is accepted. Default when
    /// `max_overkill` is given: 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_escape: Option<f64>,
    /// Choose them so that at most this share of the good validation images is rejected. Default when `max_escape` is
    /// given: 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_overkill: Option<f64>,
}

/// `[inspection.costs]`: all three, in any one unit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCosts {
    /// Of a defective part that is accepted.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub escape: Option<f64>,
    /// Of a good part that is rejected.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub overkill: Option<f64>,
    /// Of a part that a person looks at.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub look: Option<f64>,
}

/// `[unknown]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawUnknown {
    /// An image is as far from the training images as from the k-th nearest of them; 0 = none are remembered.
    #[schemars(range(max = 100_000), extend("default" = 5))]
    pub k: Option<usize>,
    /// The share of images like those of training that should pass as known: what is farther away than this share of the
    /// validation images is unknown.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0, "default" = 0.99))]
    pub quantile: Option<f64>,
}
