//! Canonical parameter names, which are timm's: parsed and written here and nowhere else.
//!
//! `blocks.3.attn.qkv.weight` is the part [`Part::Weight`] of the layer [`Layer::Qkv`] of block 3. A name says where in
//! the network its parameter lies ([`Segment`]) and what it is there for ([`Role`]); strategies decide by these two.

use super::segment::Segment;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An enum whose variants each have one spelling, so that it is parsed and written from one list.
macro_rules! spelt {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// As it is written in a parameter's name.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

spelt! {
    /// A layer or token that has parameters, in the order of the forward pass: up to [`Layer::NormPre`] they are outside the
    /// blocks and before them, from [`Layer::Norm1`] to [`Layer::Prompt`] in each block, up to [`Layer::Whitening`] in the
    /// pooling, from [`Layer::TileV`] on in the head.
    Layer {
        /// The class token (1, 1, d).
        ClsToken = "cls_token",
        /// The distillation token (1, 1, d) of `DeiT`.
        DistToken = "dist_token",
        /// The registers (1, n, d).
        RegToken = "reg_token",
        /// The table of position embeddings (1, T, d).
        PosEmbed = "pos_embed",
        /// The patch embedding.
        PatchEmbed = "patch_embed.proj",
        /// The norm behind the patch embedding.
        PatchNorm = "patch_embed.norm",
        /// The table of token embeddings (V, d) of a text tower.
        TokenEmbed = "token_embed",
        /// The norm before the first block.
        NormPre = "norm_pre",
        /// Of a block: the norm before attention.
        Norm1 = "norm1",
        /// Of a block: the packed projection to queries, keys and values.
        Qkv = "attn.qkv",
        /// Of a block: the queries' third of [`Layer::Qkv`], for adapters.
        Q = "attn.q",
        /// Of a block: the keys' third of [`Layer::Qkv`], for adapters.
        K = "attn.k",
        /// Of a block: the values' third of [`Layer::Qkv`], for adapters.
        V = "attn.v",
        /// Of a block: the table of relative positions (entries, heads).
        RelPos = "attn.relative_position_bias_table",
        /// Of a block: the first product of the network that makes such a table.
        RelFc1 = "attn.rel_pos.mlp.fc1",
        /// Of a block: its second product.
        RelFc2 = "attn.rel_pos.mlp.fc2",
        /// Of a block: what it learns of rotary positions, their frequencies (2, heads, e / 2) along both axes or the angles
        /// (1, 1, e / 2) of the class token.
        RopeFreqs = "attn.rope.freqs",
        /// Of a block: the norm of the queries, head by head.
        QNorm = "attn.q_norm",
        /// Of a block: the norm of the keys, head by head.
        KNorm = "attn.k_norm",
        /// Of a block: the norm of what was attended, before its projection.
        ProjNorm = "attn.norm",
        /// Of a block: the projection of what was attended.
        Proj = "attn.proj",
        /// Of a block: the scale of attention's residual branch.
        Scale1 = "ls1",
        /// Of a block: the norm before the MLP.
        Norm2 = "norm2",
        /// Of a block: the first product of the MLP.
        Fc1 = "mlp.fc1",
        /// Of a block: the norm before the second product of the MLP.
        MlpNorm = "mlp.norm",
        /// Of a block: the second product of the MLP.
        Fc2 = "mlp.fc2",
        /// Of a block: the scale of the MLP's residual branch.
        Scale2 = "ls2",
        /// Of a block: learnt tokens (p, d) that join the others.
        Prompt = "prompt",
        /// The norm after the last block.
        Norm = "norm",
        /// The norm after the pooling.
        FcNorm = "fc_norm",
        /// The query token (1, 1, d) of the attention pooling.
        PoolLatent = "attn_pool.latent",
        /// The projection of the attention pooling to queries.
        PoolQ = "attn_pool.q",
        /// Its packed projection to keys and values.
        PoolKv = "attn_pool.kv",
        /// Its projection of what was attended.
        PoolProj = "attn_pool.proj",
        /// Its norm before the MLP.
        PoolNorm = "attn_pool.norm",
        /// The first product of its MLP.
        PoolFc1 = "attn_pool.mlp.fc1",
        /// The second product of its MLP.
        PoolFc2 = "attn_pool.mlp.fc2",
        /// Of gated attention over patches: the map to what the tanh is taken of.
        GatedV = "gated_pool.v",
        /// Of gated attention over patches: the map to what the gate is taken of.
        GatedU = "gated_pool.u",
        /// Of gated attention over patches: the map from hidden values to a score.
        GatedW = "gated_pool.w",
        /// Of Mahalanobis distances: the map by which tokens have mean 0 and covariance 1.
        Whitening = "whitening",
        /// As [`Layer::GatedV`], over the tiles of an image.
        TileV = "tile_pool.v",
        /// As [`Layer::GatedU`], over the tiles of an image.
        TileU = "tile_pool.u",
        /// As [`Layer::GatedW`], over the tiles of an image.
        TileW = "tile_pool.w",
        /// The map from features to the space that images and texts share.
        Projection = "projection",
        /// Learnt words (n, d) before the text tower, from which the head follows.
        Context = "prompt.context",
        /// The classifier.
        Head = "head",
        /// The classifier of the distillation token.
        HeadDist = "head_dist",
    }
}

spelt! {
    /// A parameter of a layer.
    Part {
        /// The only one, which has the layer's own name.
        Whole = "",
        /// The matrix of a linear layer, the factor of a norm.
        Weight = "weight",
        /// What a linear layer or a norm adds.
        Bias = "bias",
        /// The factors of LayerScale.
        Gamma = "gamma",
        /// The inner factor (rank, in) of a low-rank adapter.
        LoraA = "lora_a",
        /// The outer factor (out, rank) of a low-rank adapter.
        LoraB = "lora_b",
        /// The logarithm of the factor on a head's cosines.
        LogitScale = "logit_scale",
    }
}

/// What a parameter is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is one of the pretrained tower's own, up to the features.
    Tower,
    /// A factor of a low-rank adapter.
    Adapter,
    /// Learnt tokens among the patches.
    Prompt,
    /// The pretrained map from features to the space that images and texts share.
    Projection,
    /// Learnt words before the text tower.
    Context,
    /// The classifier, and a pooling that is learnt with it.
    Head,
}

impl Role {
    /// The role of the parameter with a canonical name; none for other names.
    pub fn of(name: &str) -> Option<Self> {
        name.parse().ok().map(ParamName::role)
    }
}

/// The name of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamName {
    /// The block it is in, counted from the input.
    pub block: Option<usize>,
    /// The layer.
    pub layer: Layer,
    /// Which of the layer's parameters it is.
    pub part: Part,
}

impl Layer {
    /// The parameter `part` of this layer, outside the blocks.
    pub const fn part(self, part: Part) -> ParamName {
        ParamName { block: None, layer: self, part }
    }

    /// Its only parameter.
    pub const fn whole(self) -> ParamName {
        self.part(Part::Whole)
    }

    /// Its weight.
    pub const fn weight(self) -> ParamName {
        self.part(Part::Weight)
    }

    /// Its bias.
    pub const fn bias(self) -> ParamName {
        self.part(Part::Bias)
    }

    /// Whether it is a layer of a block.
    fn is_of_block(self) -> bool {
        (Self::Norm1..=Self::Prompt).contains(&self)
    }
}

impl ParamName {
    /// The same parameter of a block.
    #[must_use]
    pub const fn in_block(self, block: usize) -> Self {
        Self { block: Some(block), ..self }
    }

    /// Another parameter of the same layer.
    #[must_use]
    pub const fn sibling(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// Where in the network it lies.
    pub fn segment(self) -> Segment {
        match self.block {
            Some(block) => Segment::Block(block),
            None if self.layer <= Layer::NormPre => Segment::Embed,
            None if self.layer >= Layer::TileV => Segment::Head,
            None => Segment::Pool,
        }
    }

    /// What it is there for.
    pub fn role(self) -> Role {
        match (self.layer, self.part) {
            (_, Part::LoraA | Part::LoraB) => Role::Adapter,
            (Layer::Prompt, _) => Role::Prompt,
            (Layer::Projection, _) => Role::Projection,
            (Layer::Context, _) => Role::Context,
            // What is learnt with the classifier, and the classifiers.
            (layer, _) if layer >= Layer::GatedV => Role::Head,
            _ => Role::Tower,
        }
    }

    /// Whether it is a token or a position of one.
    pub fn is_token(self) -> bool {
        matches!(
            self.layer,
            Layer::ClsToken
                | Layer::DistToken
                | Layer::RegToken
                | Layer::PosEmbed
                | Layer::RelPos
                | Layer::RopeFreqs
                | Layer::Prompt
                | Layer::Context
        )
    }
}

/// In the order of their texts, which is that of [`super::Params`].
impl Ord for ParamName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for ParamName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A text that is not a canonical parameter name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownName;

impl FromStr for ParamName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let (block, rest) = match text.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
            Some((block, rest)) => (Some(block.parse().map_err(|_| UnknownName)?), rest),
            None => (None, text),
        };
        let whole = Layer::parse(rest).map(Layer::whole);
        let part = || {
            let (layer, part) = rest.rsplit_once('.')?;
            Some(Layer::parse(layer)?.part(Part::parse(part).filter(|part| *part != Part::Whole)?))
        };
        let name = whole.or_else(part).filter(|name| name.layer.is_of_block() == block.is_some());
        name.map(|name| Self { block, ..name }).ok_or(UnknownName)
    }
}

impl fmt::Display for ParamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(block) = self.block {
            write!(f, "blocks.{block}.")?;
        }
        f.write_str(self.layer.text())?;
        match self.part {
            Part::Whole => Ok(()),
            part => write!(f, ".{}", part.text()),
        }
    }
}

/// So that a bare text can be asked for as well.
impl From<ParamName> for String {
    fn from(name: ParamName) -> Self {
        name.to_string()
    }
}

impl From<&ParamName> for String {
    fn from(name: &ParamName) -> Self {
        name.to_string()
    }
}
