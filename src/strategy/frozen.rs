//! The backbone is a fixed feature extractor; only the head learns.

use super::{Place, Strategy};

/// `strategy.kind = "frozen"`
pub struct Frozen;

impl Strategy for Frozen {
    fn learns(&self, place: Place) -> bool {
        place == Place::Head
    }
}
