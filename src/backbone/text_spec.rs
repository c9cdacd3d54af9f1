//! What a text tower is: its shape and its options.

use super::name::Layer;
use super::spec::{AttentionSpec, BlockSpec, MlpSpec, NormSpec, Shapes};

/// Which token stands for the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPool {
    /// The one with the largest number: the end of the text in CLIP's vocabulary.
    Largest,
    /// The first with this number.
    EndOfText(u32),
    /// The first.
    First,
    /// The last, padding or not (`SigLIP`).
    Last,
}

/// The architecture of a text tower.
#[derive(Debug, Clone, PartialEq)]
pub struct TextSpec {
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of a text, padding included.
    pub context: usize,
    /// Width of the tokens.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// The attention of every block.
    pub attention: AttentionSpec,
    /// The MLP of every block.
    pub mlp: MlpSpec,
    /// Added to the variance in every layer norm.
    pub eps: f32,
    /// Whether a token sees only itself and those before it (CLIP).
    pub causal: bool,
    /// Which token stands for the text.
    pub pool: TextPool,
    /// Width of the embedding behind the projection; 0 without a projection.
    pub projection: usize,
    /// Whether the projection has a bias (`SigLIP`).
    pub projection_bias: bool,
}

impl TextSpec {
    /// Number of values of all parameters.
    pub fn parameters(&self) -> usize {
        self.shapes().values().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// What every block is.
    pub(super) fn block(&self) -> BlockSpec {
        let Self { width, eps, attention, causal, mlp, .. } = *self;
        BlockSpec { width, norms: NormSpec::layer(eps), attention, causal, mlp, layer_scale: false }
    }

    /// The name and shape of every parameter.
    pub fn shapes(&self) -> Shapes {
        let d = self.width;
        let mut shapes = Shapes::new();
        shapes.insert(Layer::TokenEmbed.whole(), vec![self.vocabulary, d]);
        shapes.insert(Layer::PosEmbed.whole(), vec![1, self.context, d]);
        let block = self.block();
        (0..self.depth).for_each(|index| shapes.extend(block.shapes(index)));
        shapes.insert(Layer::Norm.weight(), vec![d]);
        shapes.insert(Layer::Norm.bias(), vec![d]);
        if self.projection > 0 {
            shapes.insert(Layer::Projection.weight(), vec![self.projection, d]);
            if self.projection_bias {
                shapes.insert(Layer::Projection.bias(), vec![self.projection]);
            }
        }
        shapes
    }
}
