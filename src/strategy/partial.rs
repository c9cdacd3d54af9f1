//! Some blocks, the final norm and the head learn; everything else stays as pretrained, the map to the space of texts too.

use super::{Place, Strategy};

/// `strategy.kind = "partial"`
pub struct Partial {
    /// The blocks that learn.
    pub blocks: Vec<usize>,
}

impl Strategy for Partial {
    fn learns(&self, place: Place) -> bool {
        match place {
            Place::Embedding | Place::Adapter(_) | Place::Prompt(_) | Place::Projection | Place::Context => false,
            Place::Block(block) => self.blocks.contains(&block),
            Place::FinalNorm | Place::Head => true,
        }
    }
}
