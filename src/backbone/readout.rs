//! What is read out of the backbone: the features that feed a head, and the activations that frozen layers leave.

use super::pool::{patch_mean, token};
use super::poolings::tile_factor;
use super::segment::Segment;
use super::spec::{Pool, VitSpec};
use super::vit::Vit;
use crate::config::{FeatureChoice, TilePool};
use crate::error::{Error, Result};
use crate::nn::Mode;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Which tokens become the features of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readout {
    /// The tokens.
    pub features: FeatureChoice,
    /// The last blocks they are read from, the lowest first.
    pub blocks: usize,
}

impl Readout {
    /// What the pretrained pooling gives to a head.
    pub const POOL: Self = Self { features: FeatureChoice::Pool, blocks: 1 };

    /// Holds the choice of the section `section` against the backbone.
    ///
    /// # Errors
    /// A usage error when it has fewer blocks or no class token.
    pub fn new(section: &str, features: FeatureChoice, blocks: usize, spec: &VitSpec) -> Result<Self> {
        if blocks > spec.depth {
            return Err(Error::usage_hint(
                format!("{section}.blocks = {blocks} but the backbone has {} blocks", spec.depth),
                format!("give 1 to {}", spec.depth),
            ));
        }
        let reads_cls = matches!(features, FeatureChoice::Cls | FeatureChoice::Both);
        if reads_cls && !spec.prefix.class {
            return Err(Error::usage_hint(
                format!("{section}.features asks for the class token, but the backbone has none"),
                format!("set {section}.features = \"avg\" or \"pool\""),
            ));
        }
        let learnt = [
            ("model.pool", features == FeatureChoice::Pool && spec.pooling.pool == Pool::Gated),
            ("model.tile_pool", spec.pooling.tiles == TilePool::Attention),
        ];
        if let Some((key, _)) = learnt.into_iter().find(|(_, is_learnt)| *is_learnt) {
            return Err(Error::usage_hint(
                format!("{key} = \"attention\" is learnt in training, and `vitadapt {section}` trains nothing"),
                format!("set {key} to \"max\" or another pooling without parameters"),
            ));
        }
        if spec.pooling.pool == Pool::Mahalanobis && (section != "probe" || features != FeatureChoice::Pool) {
            return Err(Error::usage_hint(
                format!(
                    "model.pool = \"mahalanobis\" is measured on training images, which {section}.features = \"pool\" of \
                         `vitadapt probe` does, and nothing else"
                ),
                "set model.pool to \"max\" or another pooling",
            ));
        }
        // The pooling of one block is the backbone's own; of several, it is repeated on each.
        let features = match (features, blocks, spec.pooling.pool) {
            (FeatureChoice::Pool, 2.., Pool::Cls) => FeatureChoice::Cls,
            (FeatureChoice::Pool, 2.., Pool::Avg) => FeatureChoice::Avg,
            (FeatureChoice::Pool, 2.., Pool::ClsAvg) => FeatureChoice::Both,
            (FeatureChoice::Pool, 2.., _) => {
                return Err(Error::usage_hint(
                    format!("{section}.blocks = {blocks}, but the backbone's pooling reads the last block only"),
                    format!("set {section}.blocks = 1, or {section}.features = \"avg\""),
                ));
            }
            (features, ..) => features,
        };
        Ok(Self { features, blocks })
    }

    /// Values an image.
    pub fn width(&self, spec: &VitSpec) -> usize {
        let of_input = match self.features {
            FeatureChoice::Pool => spec.features(),
            FeatureChoice::Cls | FeatureChoice::Avg => self.blocks * spec.width,
            FeatureChoice::Both => 2 * self.blocks * spec.width,
        };
        tile_factor(spec.pooling.tiles) * of_input
    }
}

/// Which tokens are the patches of an image, for methods that compare patches: those behind two blocks, joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchReadout {
    /// The blocks, counted from 1, the lower one first; the same one twice is read once.
    pub blocks: [usize; 2],
    /// Each patch is the mean of a square of so many a side around it, with zeros beyond the border; 1 = itself.
    pub neighborhood: usize,
}

impl PatchReadout {
    /// Holds a choice of blocks against the backbone; without one these are at half and at two thirds of the depth.
    ///
    /// # Errors
    /// A usage error when it has fewer blocks.
    pub fn new(blocks: &[usize], neighborhood: usize, spec: &VitSpec) -> Result<Self> {
        let depth = spec.depth;
        let blocks = match *blocks {
            [] => [depth.div_ceil(2), (2 * depth).div_ceil(3)],
            [only] => [only, only],
            [one, other, ..] => [one.min(other), one.max(other)],
        };
        if let Some(block) = blocks.into_iter().find(|block| !(1..=depth).contains(block)) {
            return Err(Error::usage_hint(
                format!("probe.patch_blocks names block {block}, but the backbone has {depth} blocks"),
                format!("give one or two numbers from 1 to {depth}"),
            ));
        }
        Ok(Self { blocks, neighborhood })
    }

    /// The blocks, each once.
    pub fn distinct(&self) -> &[usize] {
        let [first, last] = self.blocks;
        &self.blocks[..if first == last { 1 } else { 2 }]
    }

    /// Values of a patch.
    pub fn width(&self, spec: &VitSpec) -> usize {
        self.distinct().len() * spec.width
    }
}

/// What may be taken out of a backbone on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// The tokens that a block reads, counted from the input; of `depth`, those after the last.
    Block(usize),
    /// The features of a readout.
    Features(Readout),
    /// What every pooling of [`VitSpec::poolings`] makes of an image, one after another.
    Poolings,
    /// The patches of an image, one after another.
    Patches(PatchReadout),
}

impl Activations {
    /// Those that `segment` reads, where the head reads those of `readout`; none before the embedding, which reads pixels.
    pub fn before(segment: Segment, depth: usize, readout: Readout) -> Option<Self> {
        match segment {
            Segment::Embed => None,
            Segment::Block(_) | Segment::Pool => Some(Self::Block(segment.blocks_before(depth))),
            Segment::Head => Some(Self::Features(readout)),
        }
    }

    /// The shape of one image's values.
    pub fn shape(self, spec: &VitSpec) -> Vec<usize> {
        match self {
            Self::Block(_) => vec![spec.tokens(), spec.width],
            Self::Features(readout) => vec![readout.width(spec)],
            Self::Patches(patches) => vec![spec.grid().area(), patches.width(spec)],
            Self::Poolings => {
                let of_input: usize = spec.poolings().iter().map(|(_, pool)| pool.features(spec.width)).sum();
                vec![tile_factor(spec.pooling.tiles) * of_input]
            }
        }
    }
}

impl Segment {
    /// The shape of what it reads of one image, where the head reads the features of `readout`.
    pub fn input_shape(self, spec: &VitSpec, readout: Readout) -> Vec<usize> {
        Activations::before(self, spec.depth, readout)
            .map_or_else(|| spec.image_size.shape().to_vec(), |read| read.shape(spec))
    }
}

impl Vit {
    /// The segments from `start` to the features that feed the head; none from the head on.
    pub fn segments(&self, start: Segment) -> Vec<Segment> {
        let blocks = (0..self.depth()).map(Segment::Block);
        let all = [Segment::Embed].into_iter().chain(blocks).chain([Segment::Pool]);
        all.filter(|segment| *segment >= start).collect()
    }

    /// pixels (B, 3, S, S) to what is taken out (B, …).
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn extract(&self, wanted: Activations, pixels: &Tensor, mode: Mode<'_>) -> candle_core::Result<Tensor> {
        match wanted {
            Activations::Block(block) => self.prefix(pixels, block, mode),
            Activations::Features(readout) => self.read(readout, pixels, mode),
            Activations::Poolings => self.pooled_by_all(pixels, mode),
            Activations::Patches(patches) => self.patches(patches, pixels, mode),
        }
    }

    /// What `start` reads (B, …) to the features (B, d) that feed the head; `readout` says which those are.
    ///
    /// # Errors
    /// When the values do not have the shape that `start` reads.
    pub fn run_from(
        &self,
        start: Segment,
        readout: Readout,
        x: &Tensor,
        mode: Mode<'_>,
    ) -> candle_core::Result<Tensor> {
        match start {
            Segment::Embed => self.read(readout, x, mode),
            Segment::Block(_) | Segment::Pool => self.suffix(x, start.blocks_before(self.depth()), mode),
            Segment::Head => Ok(x.clone()),
        }
    }

    /// pixels (B, 3, S, S) to the features (B, d) of a readout.
    fn read(&self, readout: Readout, pixels: &Tensor, mode: Mode<'_>) -> candle_core::Result<Tensor> {
        if readout.features == FeatureChoice::Pool {
            return self.features(pixels, mode);
        }
        self.gathered(readout.features, &self.last_tokens(pixels, readout.blocks, mode)?)
    }

    /// What a choice takes of the normed tokens (B, T, d) behind each of some blocks, one after another (B, …).
    pub(super) fn gathered(&self, choice: FeatureChoice, ends: &[Tensor]) -> candle_core::Result<Tensor> {
        let mut parts = Vec::new();
        for tokens in ends {
            if matches!(choice, FeatureChoice::Cls | FeatureChoice::Both) {
                parts.push(token(tokens, 0)?);
            }
            if matches!(choice, FeatureChoice::Avg | FeatureChoice::Both) {
                parts.push(patch_mean(tokens, self.prefix_tokens())?);
            }
        }
        Tensor::cat(&parts, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kept_activations_keep_their_names_in_addresses() {
        let named = |segment| json!(Activations::before(segment, 6, Readout::POOL));
        assert_eq!(named(Segment::Embed), json!(null));
        assert_eq!(named(Segment::Block(2)), json!({"block": 2}));
        assert_eq!(named(Segment::Pool), json!({"block": 6}), "as before a block behind the last");
        assert_eq!(named(Segment::Head), json!({"features": {"features": "pool", "blocks": 1}}));
        assert_eq!(json!(Activations::Poolings), json!("poolings"));
    }
}
