//! What a pretrained backbone is: its shape, its options and how its inputs were prepared.

pub(super) use super::block_spec::BlockSpec;
pub use super::block_spec::{AttentionSpec, MlpKind, MlpSpec, NormSpec, Shapes};
use super::name::{Layer, ParamName};
pub use super::poolings::Pool;
use super::poolings::{OF_PATCHES, OF_TILES, attention_linears, gated_shapes, whitening_shapes};
use super::positions::{CLASS_ENTRIES, LearntAngles, Positions, relative_distances};
use crate::config::{PoolChoice, TilePool};
use crate::data::transform::BackboneDefaults;
use crate::size::Size;

/// The architecture of a pre-norm vision transformer, in the terms all families share.
#[derive(Debug, Clone, PartialEq)]
pub struct VitSpec {
    /// The architecture's name in its own library.
    pub architecture: String,
    /// Width of the tokens.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Size of the input in pixels.
    pub image_size: Size,
    /// How pixels become tokens.
    pub patch: PatchSpec,
    /// The tokens before the patches.
    pub prefix: PrefixSpec,
    /// How tokens know where they lie.
    pub positions: Positions,
    /// Whether there is a layer norm before the first block (CLIP).
    pub norm_pre: bool,
    /// Every norm.
    pub norms: NormSpec,
    /// The attention of every block.
    pub attention: AttentionSpec,
    /// The MLP of every block.
    pub mlp: MlpSpec,
    /// Whether the residual branches are scaled (LayerScale).
    pub layer_scale: bool,
    /// From the last block to the features.
    pub pooling: PoolingSpec,
    /// What the file holds behind the features.
    pub outputs: OutputSpec,
    /// How inputs are prepared.
    pub input: BackboneDefaults,
}

/// The patch embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchSpec {
    /// Side of a patch in pixels.
    pub size: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether a norm follows it, before positions are added (`AIMv2`).
    pub norm: bool,
}

/// The tokens before the patches, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefixSpec {
    /// Whether there is a class token before the patches.
    pub class: bool,
    /// Whether a distillation token follows the class token (`DeiT`).
    pub distillation: bool,
    /// Register tokens between the class token and the patches (Darcet et al. 2023).
    pub registers: usize,
}

impl PrefixSpec {
    /// How many there are.
    pub fn count(self) -> usize {
        usize::from(self.class) + usize::from(self.distillation) + self.registers
    }
}

/// From the last block to the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolingSpec {
    /// The pooling the backbone was trained with.
    pub pool: Pool,
    /// Whether there is a layer norm before it.
    pub norm: bool,
    /// Whether a layer norm follows it.
    pub fc_norm: bool,
    /// The attention pooling, where it differs from [`PoolQuery::like`] the blocks.
    pub query: Option<PoolQuery>,
    /// How the features of the tiles of an image are joined, where it is cut.
    pub tiles: TilePool,
}

impl PoolingSpec {
    /// Pooling behind a layer norm.
    pub fn of(pool: Pool) -> Self {
        Self { pool, norm: true, fc_norm: false, query: None, tiles: TilePool::Max }
    }
}

/// An attention pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolQuery {
    /// Its heads.
    pub heads: usize,
    /// Hidden width of its MLP.
    pub hidden: usize,
    /// Whether it reads the tokens before the patches too.
    pub reads_prefix: bool,
}

impl PoolQuery {
    /// One that has the heads and the hidden width of the blocks and reads the patches alone.
    pub fn like(attention: AttentionSpec, mlp: MlpSpec) -> Self {
        Self { heads: attention.heads, hidden: mlp.hidden, reads_prefix: false }
    }
}

/// What a file holds behind the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputSpec {
    /// Classes of the pretrained head; 0 without one.
    pub classes: usize,
    /// Outputs of the pretrained projection (CLIP's image embedding); 0 without one.
    pub projection: usize,
    /// Whether that has a bias.
    pub projection_bias: bool,
}

impl VitSpec {
    /// Tokens before the patches: class token, distillation token, registers.
    pub fn prefix_tokens(&self) -> usize {
        self.prefix.count()
    }

    /// Width of the features of an input.
    pub fn features(&self) -> usize {
        self.pooling.pool.features(self.width)
    }

    /// Whether its tokens can be pooled so.
    pub fn can_be_pooled_by(&self, pool: Pool) -> bool {
        match pool {
            Pool::Cls | Pool::ClsAvg => self.prefix.class,
            Pool::Distilled => self.prefix.class && self.prefix_tokens() > 1,
            _ => true,
        }
    }

    /// The poolings that have nothing to learn: its own, then the others that it can be pooled by.
    pub fn poolings(&self) -> Vec<(PoolChoice, Pool)> {
        use PoolChoice::{Avg, Cls, Gem, Lse, Max, Stats, Topk};
        let others = [Cls, Avg, Max, Lse, Topk, Gem, Stats];
        let others = others.into_iter().filter_map(|choice| Some((choice, Pool::named(choice)?)));
        let others = others.filter(|(_, pool)| *pool != self.pooling.pool && self.can_be_pooled_by(*pool));
        std::iter::once((PoolChoice::Backbone, self.pooling.pool)).chain(others).collect()
    }

    /// Patches down and across.
    pub fn grid(&self) -> Size {
        self.image_size.map(|side| side / self.patch.size)
    }

    /// All tokens of one image.
    pub fn tokens(&self) -> usize {
        self.prefix_tokens() + self.grid().area()
    }

    /// The entries of every block's table of relative positions, where positions are relative.
    pub(super) fn relative_entries(&self) -> Option<usize> {
        let entries = relative_distances(self.grid()).area() + CLASS_ENTRIES * self.prefix_tokens();
        matches!(self.positions, Positions::Relative(_)).then_some(entries)
    }

    /// The attention pooling, if there is one.
    pub fn pool_query(&self) -> Option<PoolQuery> {
        let like = || PoolQuery::like(self.attention, self.mlp);
        (self.pooling.pool == Pool::Attention).then(|| self.pooling.query.unwrap_or_else(like))
    }

    /// What every block is.
    pub(super) fn block(&self) -> BlockSpec {
        BlockSpec {
            width: self.width,
            norms: self.norms,
            attention: self.attention,
            causal: false,
            mlp: self.mlp,
            layer_scale: self.layer_scale,
        }
    }

    /// The name and shape of every parameter of the backbone, without the head: the one list that strict loading,
    /// strategies and memory estimates go by.
    pub fn shapes(&self) -> Shapes {
        let d = self.width;
        let mut shapes = Shapes::new();
        let mut add = |name: ParamName, shape: &[usize]| {
            shapes.insert(name, shape.to_vec());
        };
        if self.prefix.class {
            add(Layer::ClsToken.whole(), &[1, 1, d]);
        }
        if self.prefix.distillation {
            add(Layer::DistToken.whole(), &[1, 1, d]);
        }
        if self.prefix.registers > 0 {
            add(Layer::RegToken.whole(), &[1, self.prefix.registers, d]);
        }
        if let Some(table) = self.positions.table() {
            add(Layer::PosEmbed.whole(), &[1, table.prefix + self.grid().area(), d]);
        }
        add(Layer::PatchEmbed.weight(), &[d, 3, self.patch.size, self.patch.size]);
        if self.patch.bias {
            add(Layer::PatchEmbed.bias(), &[d]);
        }
        let query = self.pool_query();
        let norms = [
            (self.patch.norm, Layer::PatchNorm),
            (self.norm_pre, Layer::NormPre),
            (self.pooling.norm, Layer::Norm),
            (self.pooling.fc_norm, Layer::FcNorm),
            (query.is_some(), Layer::PoolNorm),
        ];
        for (_, norm) in norms.into_iter().filter(|(present, _)| *present) {
            self.norms.parameters(norm).for_each(|name| add(name, &[d]));
        }
        if let Some(query) = query {
            add(Layer::PoolLatent.whole(), &[1, 1, d]);
            for (linear, [out, inner]) in attention_linears(d, query.hidden) {
                add(linear.weight(), &[out, inner]);
                add(linear.bias(), &[out]);
            }
        }
        if self.pooling.pool == Pool::Gated {
            shapes.extend(gated_shapes(OF_PATCHES, d));
        }
        if self.pooling.tiles == TilePool::Attention {
            shapes.extend(gated_shapes(OF_TILES, self.features()));
        }
        if self.pooling.pool == Pool::Mahalanobis {
            shapes.extend(whitening_shapes(d));
        }
        let block = self.block();
        (0..self.depth).for_each(|index| shapes.extend(block.shapes(index)));
        let mut add_to_blocks = |name: ParamName, shape: &[usize]| {
            shapes.extend((0..self.depth).map(|index| (name.in_block(index), shape.to_vec())));
        };
        let heads = self.attention.heads;
        if let Some(entries) = self.relative_entries() {
            add_to_blocks(Layer::RelPos.whole(), &[entries, heads]);
        }
        if let Positions::RelativeMlp { hidden } = self.positions {
            add_to_blocks(Layer::RelFc1.weight(), &[hidden, 2]);
            add_to_blocks(Layer::RelFc1.bias(), &[hidden]);
            add_to_blocks(Layer::RelFc2.weight(), &[heads, hidden]);
            add_to_blocks(Layer::RelFc2.bias(), &[heads]);
        }
        match self.positions.rotary().map_or(LearntAngles::Nothing, |rotary| rotary.learnt) {
            LearntAngles::Nothing => {}
            LearntAngles::Frequencies => add_to_blocks(Layer::RopeFreqs.whole(), &[2, heads, d / heads / 2]),
            LearntAngles::ClassToken => add_to_blocks(Layer::RopeFreqs.whole(), &[1, 1, d / heads / 2]),
        }
        shapes
    }

    /// The name and shape of what the file holds behind the features: the pretrained classifier, that of the
    /// distillation token, the projection of CLIP.
    pub fn output_shapes(&self) -> Shapes {
        let mut shapes = Shapes::new();
        if self.outputs.classes > 0 {
            let distilled = self.pooling.pool == Pool::Distilled && self.prefix.distillation;
            for head in [Layer::Head].into_iter().chain(distilled.then_some(Layer::HeadDist)) {
                shapes.insert(head.weight(), vec![self.outputs.classes, self.features()]);
                shapes.insert(head.bias(), vec![self.outputs.classes]);
            }
        }
        if self.outputs.projection > 0 {
            shapes.insert(Layer::Projection.weight(), vec![self.outputs.projection, self.features()]);
        }
        if self.outputs.projection_bias {
            shapes.insert(Layer::Projection.bias(), vec![self.outputs.projection]);
        }
        shapes
    }
}
