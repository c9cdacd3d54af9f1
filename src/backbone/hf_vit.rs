//! The transformers format of google/vit: `ViTModel` and `ViTForImageClassification`.
//!
//! Reference: transformers' `modeling_vit.py`. Both spellings of the attention names are read: the one of the files on
//! the hub, and the one that transformers 5 uses in memory.

use super::hf::{self, Defaults, Spelling, prefix_if_used};
use super::prelude::*;

const PREFIX: &str = "vit.";

/// transformers' `ViT`.
pub const FAMILY: Family = Family {
    name: "transformers ViT",
    recognises: |config| config["model_type"] == "vit",
    spec,
    usual_size: |_| None,
    mapping: |name, header| mapping(name, header, prefix_if_used(header, PREFIX)),
    ignores: |name, _| ignores(name),
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let input = BackboneDefaults::new(SYMMETRIC, ResizeMode::Squash, Interpolation::Bilinear, 1.0);
    let defaults = Defaults { patch: 16, activation: Activation::Gelu, eps: 1e-12, input };
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "ViTModel"),
        outputs: OutputSpec { classes: outputs(header, "classifier.weight"), ..OutputSpec::default() },
        ..hf::base(&Config(&description.config), &defaults, &description.preprocessor)?
    })
}

/// The names that `ViT` and `DeiT` share, behind the prefix of classifiers.
pub(super) fn mapping(name: ParamName, header: &Header, prefix: &str) -> WeightMapping {
    spelled(name, Spelling::of(header, prefix), prefix)
}

/// The same where blocks are named by `names`.
pub(super) fn spelled(name: ParamName, names: &Spelling, prefix: &str) -> WeightMapping {
    let part = name.part.text();
    if let Some(block) = name.block {
        let at = |module: &str| format!("{prefix}{}.{block}.{module}.{part}", names.blocks);
        return match name.layer {
            Layer::Qkv => WeightMapping::Stack(names.qkv.iter().map(|module| at(module)).collect()),
            Layer::Proj => WeightMapping::One(at(names.proj)),
            Layer::Norm1 => WeightMapping::One(at("layernorm_before")),
            Layer::Norm2 => WeightMapping::One(at("layernorm_after")),
            Layer::Fc1 => WeightMapping::One(at(names.fc1)),
            Layer::Fc2 => WeightMapping::One(at(names.fc2)),
            other => WeightMapping::One(at(other.text())),
        };
    }
    WeightMapping::One(match name.layer {
        Layer::ClsToken => format!("{prefix}embeddings.cls_token"),
        Layer::DistToken => format!("{prefix}embeddings.distillation_token"),
        Layer::PosEmbed => format!("{prefix}embeddings.position_embeddings"),
        Layer::PatchEmbed => format!("{prefix}embeddings.patch_embeddings.projection.{part}"),
        Layer::Norm => format!("{prefix}layernorm.{part}"),
        Layer::Head => format!("classifier.{part}"),
        _ => name.into(),
    })
}

/// The pooler of in21k files feeds no classifier; the mask token serves masked pretraining only.
pub(super) fn ignores(name: &str) -> bool {
    name.contains("pooler.dense.") || name.ends_with("embeddings.mask_token")
}
