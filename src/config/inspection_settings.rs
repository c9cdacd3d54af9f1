//! The resolved settings of decisions about parts: `[inspection]`, and `[unknown]` for images unlike those of training.

use serde::{Deserialize, Serialize};

/// `[inspection]`: which parts are good, and what mistakes are worth.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct InspectionSettings {
    /// The classes of sound parts; every other class is a defect. Empty = the classes are no verdicts on parts.
    pub good: Vec<String>,
    /// The share of defective parts in production; none = unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prevalence: Option<f64>,
    /// How the two thresholds are chosen between which a person looks; none = nobody does.
    #[serde(flatten)]
    pub band: Option<BandGoal>,
}

/// `inspection.costs`, or `inspection.max_escape` and `inspection.max_overkill`
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BandGoal {
    /// The least expected cost.
    Costs(Costs),
    /// The fewest looks with which the validation images stay within two rates.
    #[serde(untagged)]
    Limits(Limits),
}

/// `[inspection.costs]`: what one part costs, in any one unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// A defective part that is accepted.
    pub escape: f64,
    /// A good part that is rejected.
    pub overkill: f64,
    /// A part that a person looks at.
    pub look: f64,
}

/// The largest shares of wrong answers that nobody looks at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Accepted among the defective parts.
    pub max_escape: f64,
    /// Rejected among the good parts.
    pub max_overkill: f64,
}

/// `[unknown]`: how images are recognised that are unlike those of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct UnknownSettings {
    /// The training image that counts is the k-th nearest; 0 = no training images are remembered.
    pub k: usize,
    /// The share of images like those of training that should pass as known.
    pub quantile: f64,
}
