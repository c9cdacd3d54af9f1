//! The last blocks, the final norm and the head learn; everything below them stays as pretrained, and so does the map to
//! the space of texts.

use super::{Place, Strategy};

/// `strategy.kind = "partial"`
pub struct Partial {
    /// Blocks that learn, counted from the output.
    pub blocks: usize,
}

impl Strategy for Partial {
    fn learns(&self, place: Place, depth: usize) -> bool {
        match place {
            Place::Embedding | Place::Projection => false,
            Place::Block(block) => block + self.blocks >= depth,
            Place::FinalNorm | Place::Head => true,
        }
    }

    fn blocks(&self) -> usize {
        self.blocks
    }
}
