//! The transformers format of `SigLIP`, and of `SigLIP` 2 at a fixed resolution, which has the same classes.
//!
//! Reference: transformers' `modeling_siglip.py`. The features are those of the attention pooling head; only
//! `SiglipForImageClassification`, and a tower saved without the head, take the mean of the tokens.

use super::hf::{self, Defaults, prefix_if_used};
use super::hf_clip::{is_index, tower, vision_config};
use super::prelude::*;

const PREFIX: &str = "vision_model.";
const CLASSIFIER: &str = "classifier.weight";

/// Prefixes of the text tower and of what compares texts with images, in a file of the whole model.
const TEXT: &[&str] = &["text_model.", "logit_scale", "logit_bias"];

/// transformers' `SigLIP`.
pub const FAMILY: Family = Family {
    name: "transformers SigLIP",
    recognises: |config| config["model_type"] == "siglip" || config["model_type"] == "siglip_vision_model",
    spec: |description, header| spec(description, header, Interpolation::Bicubic),
    usual_size: |_| None,
    mapping,
    ignores,
};

/// The architecture, with images resized by `interpolation` where no image processor says otherwise.
pub(super) fn spec(
    description: &Description,
    header: &Header,
    interpolation: Interpolation,
) -> Result<VitSpec, String> {
    let vision = Config(vision_config(&description.config));
    let input = BackboneDefaults::new(SYMMETRIC, ResizeMode::Squash, interpolation, 1.0);
    let defaults = Defaults { patch: 16, activation: Activation::GeluTanh, eps: 1e-6, input };
    let classes = outputs(header, CLASSIFIER);
    let attention = classes == 0 && vision.flag("vision_use_head", true);
    let spec = hf::base(&vision, &defaults, &description.preprocessor)?;
    let pool = if attention { Pool::Attention } else { Pool::Avg };
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "SiglipModel"),
        prefix: PrefixSpec::default(),
        positions: Positions::Table(hf::positions(0)),
        attention: AttentionSpec { qkv_bias: true, ..spec.attention },
        pooling: PoolingSpec { pool, ..spec.pooling },
        outputs: OutputSpec { classes, ..OutputSpec::default() },
        ..spec
    })
}

/// Where the canonical parameter `name` lies.
pub(super) fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let prefix = prefix_if_used(header, PREFIX);
    pooling(name, prefix).or_else(|| tower(name, prefix)).unwrap_or_else(|| {
        WeightMapping::One(match name.layer {
            Layer::Head => format!("classifier.{}", name.part.text()),
            _ => name.into(),
        })
    })
}

/// What lies beside the image tower, or is not read by the classifier.
pub(super) fn ignores(name: &str, header: &Header) -> bool {
    let unused_head = header.contains_key(CLASSIFIER) && name.starts_with("vision_model.head.");
    unused_head || TEXT.iter().any(|text| name.starts_with(text)) || is_index(name)
}

/// The attention pooling, if `name` is of it: a PyTorch `MultiheadAttention`, which packs its three projections in one
/// tensor.
fn pooling(name: ParamName, prefix: &str) -> Option<WeightMapping> {
    let part = name.part.text();
    let one = |theirs: &str| WeightMapping::One(format!("{prefix}head.{theirs}.{part}"));
    let packed = |first: usize, count: usize| WeightMapping::Thirds {
        name: format!("{prefix}head.attention.in_proj_{part}"),
        first,
        count,
    };
    Some(match name.layer {
        Layer::PoolLatent => WeightMapping::One(format!("{prefix}head.probe")),
        Layer::PoolQ => packed(0, 1),
        Layer::PoolKv => packed(1, 2),
        Layer::PoolProj => one("attention.out_proj"),
        Layer::PoolNorm => one("layernorm"),
        Layer::PoolFc1 => one("mlp.fc1"),
        Layer::PoolFc2 => one("mlp.fc2"),
        _ => return None,
    })
}
