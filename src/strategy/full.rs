//! Everything is trained, usually with layer decay so that the lower layers move less.

use super::Strategy;
use crate::backbone::ParamName;

/// `strategy.kind = "full"`
pub struct Full;

impl Strategy for Full {
    fn trainable(&self, _name: ParamName) -> bool {
        true
    }
}
