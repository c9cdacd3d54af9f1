//! The resolved settings of decisions about parts: `[inspection]`, and `[unknown]` for images unlike those of training.

use crate::forms;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[inspection]`: which parts are good, and what mistakes are worth.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct InspectionSettings {
    /// The class of sound parts, or a list of such classes; all others are defects. Without it nothing is said of escapes
    /// and overkill.
    // Empty = the classes are not verdicts on parts.
    #[serde(default, deserialize_with = "forms::ascending", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1)), transform = forms::one_or_many)]
    pub good: Vec<String>,
    /// The share of defective parts in production, for parts per million and expected costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub prevalence: Option<f64>,
    /// How the two thresholds are chosen between which a person looks; none = nobody does.
    #[serde(flatten)]
    pub band: Option<BandGoal>,
}

/// `inspection.costs`, or `inspection.max_escape` and `inspection.max_overkill`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BandKeys", into = "BandKeys")]
pub enum BandGoal {
    /// The least expected cost.
    Costs(Costs),
    /// The fewest looks with which the validation images stay within two rates.
    Limits(Limits),
}

/// The keys of a [`BandGoal`].
#[derive(Serialize, Deserialize, JsonSchema)]
struct BandKeys {
    /// What mistakes and looks cost: two thresholds are chosen on the validation images for the least expected cost, and
    /// between them a person looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    costs: Option<Costs>,
    /// Choose the two thresholds so that at most this share of the defective validation images is accepted. Default when
    /// `max_overkill` is given: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-excludes" = ["costs"]))]
    max_escape: Option<f64>,
    /// Choose them so that at most this share of the good validation images is rejected. Default when `max_escape` is
    /// given: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-excludes" = ["costs"]))]
    max_overkill: Option<f64>,
}

impl TryFrom<BandKeys> for BandGoal {
    type Error = &'static str;

    fn try_from(BandKeys { costs, max_escape, max_overkill }: BandKeys) -> Result<Self, Self::Error> {
        match (costs, max_escape, max_overkill) {
            (Some(costs), ..) => Ok(Self::Costs(costs)),
            (None, None, None) => Err("neither costs nor limits"),
            (None, escape, overkill) => {
                Ok(Self::Limits(Limits { max_escape: escape.unwrap_or(0.0), max_overkill: overkill.unwrap_or(0.0) }))
            }
        }
    }
}

impl From<BandGoal> for BandKeys {
    fn from(goal: BandGoal) -> Self {
        match goal {
            BandGoal::Costs(costs) => Self { costs: Some(costs), max_escape: None, max_overkill: None },
            BandGoal::Limits(Limits { max_escape, max_overkill }) => {
                Self { costs: None, max_escape: Some(max_escape), max_overkill: Some(max_overkill) }
            }
        }
    }
}

/// `[inspection.costs]`: what one part costs, in any one unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Costs {
    /// Of a defective part that is accepted.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub escape: f64,
    /// Of a good part that is rejected.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub overkill: f64,
    /// Of a part that a person looks at.
    #[schemars(range(min = 0.0, max = 1e12))]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnknownSettings {
    /// An image is as far from the training images as from the k-th nearest of them; 0 = none are remembered.
    // With k = 5 one odd training image makes nothing known that is like it alone, and five images a class suffice.
    #[schemars(range(max = 100_000), extend("default" = 5))]
    pub k: usize,
    /// The share of images like those of training that should pass as known: what is farther away than this share of the
    /// validation images is unknown.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0, "default" = 0.99))]
    pub quantile: f64,
    /// Training images to keep and compare with. Of more, all of the small classes and equally many of each other are kept,
    /// so that predictions need no more time and memory.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10_000))]
    pub images: usize,
}
