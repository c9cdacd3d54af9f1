//! What `[train]` says about a head that starts from texts.

use crate::forms;
use serde::{Deserialize, Deserializer, Serialize};

/// `true`, or a number.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OnOr {
    On(bool),
    Number(f64),
}

/// A number that is found by the data, which is written as `true`, or given: `train.head_pull`, how strongly the directions
/// of the classes are drawn to those of their texts (Silva-Rodríguez et al. 2024), and `train.wise_ft`, the share of the
/// trained weights in their mean with those before (Wortsman et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "OnOr", into = "OnOr")]
pub enum FoundOrGiven {
    /// The pull by how right the texts of each class are about the training images; the share on validation images.
    Found,
    /// The number.
    Given(f64),
}

impl From<OnOr> for FoundOrGiven {
    fn from(written: OnOr) -> Self {
        match written {
            OnOr::On(_) => Self::Found,
            OnOr::Number(number) => Self::Given(number),
        }
    }
}

impl From<FoundOrGiven> for OnOr {
    fn from(value: FoundOrGiven) -> Self {
        match value {
            FoundOrGiven::Found => Self::On(true),
            FoundOrGiven::Given(number) => Self::Number(number),
        }
    }
}

/// `train.head_pull` as it is read: a strength of 0 is none.
pub(super) fn read_pull<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<FoundOrGiven>, D::Error> {
    Ok(forms::off_or(deserializer)?.filter(|pull| *pull != FoundOrGiven::Given(0.0)))
}
