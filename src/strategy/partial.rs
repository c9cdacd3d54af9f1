//! The last blocks, the final norm and the head learn; everything below them stays as pretrained.

use super::{Place, Strategy};

/// `strategy.kind = "partial"`
pub struct Partial {
    /// Blocks that learn, counted from the output.
    pub blocks: usize,
}

impl Strategy for Partial {
    fn learns(&self, place: Place, depth: usize) -> bool {
        match place {
            Place::Embedding => false,
            Place::Block(block) | Place::Prompt(block) => block + self.blocks >= depth,
            Place::FinalNorm | Place::Context | Place::Head => true,
        }
    }

    fn blocks(&self) -> usize {
        self.blocks
    }
}
