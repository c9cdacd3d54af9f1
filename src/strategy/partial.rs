//! Some blocks, the final norm and the head are trained; everything else stays as pretrained, the map to the space of texts too.

use super::Strategy;
use crate::backbone::{ParamName, Role, Segment};

/// `strategy.kind = "partial"`
pub struct Partial {
    /// The blocks that are trained.
    pub blocks: Vec<usize>,
}

impl Strategy for Partial {
    fn trainable(&self, name: ParamName) -> bool {
        match (name.role(), name.segment()) {
            (Role::Tower, Segment::Block(block)) => self.blocks.contains(&block),
            (Role::Tower, Segment::Pool) | (Role::Head, _) => true,
            _ => false,
        }
    }
}
