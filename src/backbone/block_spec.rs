//! What the blocks of a tower are: attention, MLP and norms.

use super::name::{Layer, ParamName, Part};
use crate::nn::Activation;
use std::collections::BTreeMap;

/// Parameters with their shapes.
pub type Shapes = BTreeMap<ParamName, Vec<usize>>;

/// Self-attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionSpec {
    /// Heads of a block, which divide the width.
    pub heads: usize,
    /// Whether the projection to queries, keys and values has a bias.
    pub qkv_bias: bool,
    /// Whether the keys have one too. Where they have none, their third of the bias is zero and stays so.
    pub key_bias: bool,
    /// Whether there is a norm before the last projection (EVA02's sub-LN).
    pub norm: bool,
    /// Whether norms of queries and keys, head by head, follow their projection.
    pub qk_norm: bool,
    /// Whether the last projection has a bias.
    pub proj_bias: bool,
}

impl AttentionSpec {
    /// Plain attention, all of whose projections have biases.
    pub fn of(heads: usize) -> Self {
        Self { heads, qkv_bias: true, key_bias: true, norm: false, qk_norm: false, proj_bias: true }
    }
}

/// The MLP of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpSpec {
    /// Width of the hidden layer.
    pub hidden: usize,
    /// What it does between its two products.
    pub kind: MlpKind,
    /// Whether a norm follows it there.
    pub norm: bool,
    /// Whether its products have biases.
    pub bias: bool,
    /// Whether its branch is left unscaled where attention's is scaled (Sapiens2).
    pub unscaled: bool,
}

/// What an MLP does between its two products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpKind {
    /// An activation.
    Plain(Activation),
    /// A `SwiGLU`, for which the first product has twice the hidden width.
    SwiGlu,
}

impl MlpSpec {
    /// A plain MLP.
    pub fn plain(hidden: usize, activation: Activation) -> Self {
        Self { hidden, kind: MlpKind::Plain(activation), norm: false, bias: true, unscaled: false }
    }

    /// A gated MLP.
    pub fn gated(hidden: usize) -> Self {
        Self { kind: MlpKind::SwiGlu, ..Self::plain(hidden, Activation::Gelu) }
    }

    /// The activation; none of a `SwiGLU`.
    pub fn activation(self) -> Option<Activation> {
        match self.kind {
            MlpKind::Plain(activation) => Some(activation),
            MlpKind::SwiGlu => None,
        }
    }

    /// Whether it is a `SwiGLU`.
    pub fn is_gated(self) -> bool {
        self.kind == MlpKind::SwiGlu
    }

    /// Outputs of the first product.
    pub fn expanded(self) -> usize {
        if self.is_gated() { 2 * self.hidden } else { self.hidden }
    }
}

/// The norms of a tower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Added to the variance.
    pub eps: f32,
    /// Whether they are RMS norms (Zhang and Sennrich 2019), which subtract no mean and have no bias.
    pub rms: bool,
    /// Whether those of the blocks stand at the end of the residual branches instead of before them.
    pub behind: bool,
}

impl NormSpec {
    /// Layer norms, those of the blocks before the branches.
    pub fn layer(eps: f32) -> Self {
        Self { eps, rms: false, behind: false }
    }

    /// The parameters of one of them.
    pub(super) fn parameters(self, norm: Layer) -> impl Iterator<Item = ParamName> {
        [norm.weight()].into_iter().chain((!self.rms).then(|| norm.bias()))
    }
}

/// What the blocks of an image or text tower are, beside their parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BlockSpec {
    /// Width of the tokens.
    pub width: usize,
    /// Every norm.
    pub norms: NormSpec,
    /// Self-attention.
    pub attention: AttentionSpec,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// The MLP.
    pub mlp: MlpSpec,
    /// Whether the residual branches are scaled.
    pub layer_scale: bool,
}

impl BlockSpec {
    /// The parameters of block `index`.
    pub fn shapes(&self, index: usize) -> Shapes {
        let (d, hidden, expanded) = (self.width, self.mlp.hidden, self.mlp.expanded());
        let linears = [
            (Layer::Qkv, [3 * d, d], self.attention.qkv_bias),
            (Layer::Proj, [d, d], self.attention.proj_bias),
            (Layer::Fc1, [expanded, d], self.mlp.bias),
            (Layer::Fc2, [d, hidden], self.mlp.bias),
        ];
        let norms = [
            (true, Layer::Norm1, d),
            (self.attention.norm, Layer::ProjNorm, d),
            (self.attention.qk_norm, Layer::QNorm, d / self.attention.heads.max(1)),
            (self.attention.qk_norm, Layer::KNorm, d / self.attention.heads.max(1)),
            (true, Layer::Norm2, d),
            (self.mlp.norm, Layer::MlpNorm, hidden),
        ];
        let mut parameters = Vec::new();
        for (linear, [out, inner], bias) in linears {
            parameters.push((linear.weight(), vec![out, inner]));
            parameters.extend(bias.then(|| (linear.bias(), vec![out])));
        }
        for (_, norm, width) in norms.into_iter().filter(|(present, ..)| *present) {
            parameters.extend(self.norms.parameters(norm).map(|name| (name, vec![width])));
        }
        let scales = [(true, Layer::Scale1), (!self.mlp.unscaled, Layer::Scale2)];
        for (_, scale) in scales.into_iter().filter(|(scaled, _)| self.layer_scale && *scaled) {
            parameters.push((scale.part(Part::Gamma), vec![d]));
        }
        parameters.into_iter().map(|(name, shape)| (name.in_block(index), shape)).collect()
    }
}
