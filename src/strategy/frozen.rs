//! The backbone is a fixed feature extractor; only the head is trained.

use super::Strategy;
use crate::backbone::{ParamName, Role};

/// `strategy.kind = "frozen"`
pub struct Frozen;

impl Strategy for Frozen {
    fn trainable(&self, name: ParamName) -> bool {
        name.role() == Role::Head
    }
}
