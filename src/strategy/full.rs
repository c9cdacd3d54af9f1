//! Everything learns, usually with layer decay so that the lower layers move less.

use super::{Place, Strategy};

/// `strategy.kind = "full"`
pub struct Full;

impl Strategy for Full {
    fn learns(&self, _place: Place) -> bool {
        true
    }
}
