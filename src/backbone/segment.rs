//! Where in the network something lies.

/// A segment of the network: the one coordinate by which it is divided into what is frozen, what a step runs and keeps
/// by itself, and the layers of layer decay. Segments are ordered as the forward pass runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// From pixels to the tokens before the first block.
    Embed,
    /// A block, counted from the input.
    Block(usize),
    /// From the tokens after the last block to the features: the final norm and the pooling.
    Pool,
    /// From the features to the logits.
    Head,
}

impl Segment {
    /// How many of `depth` blocks run before it.
    pub fn blocks_before(self, depth: usize) -> usize {
        match self {
            Self::Embed => 0,
            Self::Block(block) => block,
            Self::Pool | Self::Head => depth,
        }
    }

    /// Its layer in the sense of layer decay: 0 for the embedding, block + 1, depth + 1 for what follows (timm, `BEiT`).
    pub fn layer(self, depth: usize) -> usize {
        match self {
            Self::Embed => 0,
            Self::Block(block) => block + 1,
            Self::Pool | Self::Head => depth + 1,
        }
    }
}
