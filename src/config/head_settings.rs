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

/// `train.head_pull`: how strongly the directions of the classes are drawn to those of their texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "OnOr", into = "OnOr")]
pub enum HeadPull {
    /// Each class as strongly as its texts are right about the training images (Silva-Rodríguez et al. 2024).
    Adaptive,
    /// Every class alike.
    Constant(f64),
}

impl From<OnOr> for HeadPull {
    fn from(written: OnOr) -> Self {
        match written {
            OnOr::On(_) => Self::Adaptive,
            OnOr::Number(strength) => Self::Constant(strength),
        }
    }
}

impl From<HeadPull> for OnOr {
    fn from(pull: HeadPull) -> Self {
        match pull {
            HeadPull::Adaptive => Self::On(true),
            HeadPull::Constant(strength) => Self::Number(strength),
        }
    }
}

/// `train.head_pull` as it is read: a strength of 0 is none.
pub(super) fn read_pull<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HeadPull>, D::Error> {
    Ok(forms::off_or(deserializer)?.filter(|pull| *pull != HeadPull::Constant(0.0)))
}

/// `train.wise_ft`: the mean of the weights before and after training (Wortsman et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "OnOr", into = "OnOr")]
pub enum WiseFt {
    /// The share of the trained weights is chosen on validation images.
    Chosen,
    /// It is given: 1 = the trained weights alone.
    Share(f64),
}

impl From<OnOr> for WiseFt {
    fn from(written: OnOr) -> Self {
        match written {
            OnOr::On(_) => Self::Chosen,
            OnOr::Number(share) => Self::Share(share),
        }
    }
}

impl From<WiseFt> for OnOr {
    fn from(wise_ft: WiseFt) -> Self {
        match wise_ft {
            WiseFt::Chosen => Self::On(true),
            WiseFt::Share(share) => Self::Number(share),
        }
    }
}
