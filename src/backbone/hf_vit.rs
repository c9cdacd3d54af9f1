//! The transformers format of google/vit: `ViTModel` and `ViTForImageClassification`.
//!
//! Reference: transformers' `modeling_vit.py`. Both spellings of the attention names are read: the one of the files on
//! the hub, and the one that transformers 5 uses in memory.

use super::family::{Description, Family, Header, block_parts, outputs};
use super::hf::{self, Defaults, Spelling, prefix_if_used};
use super::options::{Config, SYMMETRIC};
use super::origin::Origin;
use super::spec::VitSpec;
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;

/// transformers' `ViT`.
pub struct HfVit;

const PREFIX: &str = "vit.";

impl Family for HfVit {
    fn name(&self) -> &'static str {
        "transformers ViT"
    }

    fn recognises(&self, config: &Value) -> bool {
        config["model_type"] == "vit"
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        let defaults = Defaults { patch: 16, activation: Activation::Gelu, eps: 1e-12 };
        let (mean, std) = SYMMETRIC;
        let input = BackboneDefaults { mean, std, interpolation: Interpolation::Bilinear, crop_pct: 1.0 };
        let input = hf::input(&description.preprocessor, input)?;
        Ok(VitSpec {
            architecture: hf::class_name(&description.config, "ViTModel"),
            num_classes: outputs(header, "classifier.weight"),
            ..hf::base(&Config(&description.config), &defaults, input)?
        })
    }

    fn origin(&self, name: &str, header: &Header) -> Origin {
        origin(name, header, prefix_if_used(header, PREFIX))
    }

    fn ignores(&self, name: &str, _header: &Header) -> bool {
        ignores(name)
    }
}

/// The names that `ViT` and `DeiT` share, behind the prefix of classifiers.
pub(super) fn origin(name: &str, header: &Header, prefix: &str) -> Origin {
    let outer = match name {
        "cls_token" => Some("embeddings.cls_token"),
        "dist_token" => Some("embeddings.distillation_token"),
        "pos_embed" => Some("embeddings.position_embeddings"),
        "patch_embed.proj.weight" => Some("embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias" => Some("embeddings.patch_embeddings.projection.bias"),
        "norm.weight" => Some("layernorm.weight"),
        "norm.bias" => Some("layernorm.bias"),
        _ => None,
    };
    if let Some(theirs) = outer {
        return Origin::One(format!("{prefix}{theirs}"));
    }
    if let Some(parameter) = name.strip_prefix("head.") {
        return Origin::One(format!("classifier.{parameter}"));
    }
    let Some((block, inner, parameter)) = block_parts(name) else { return Origin::One(name.to_owned()) };
    let names = Spelling::of(header, prefix);
    let at = |module: &str| format!("{prefix}{}.{block}.{module}.{parameter}", names.blocks);
    match inner {
        "attn.qkv" => Origin::Stack(names.qkv.iter().map(|module| at(module)).collect()),
        "attn.proj" => Origin::One(at(names.proj)),
        "norm1" => Origin::One(at("layernorm_before")),
        "norm2" => Origin::One(at("layernorm_after")),
        "mlp.fc1" => Origin::One(at(names.fc1)),
        "mlp.fc2" => Origin::One(at(names.fc2)),
        other => Origin::One(at(other)),
    }
}

/// The pooler of in21k files feeds no classifier; the mask token serves masked pretraining only.
pub(super) fn ignores(name: &str) -> bool {
    name.contains("pooler.dense.") || name.ends_with("embeddings.mask_token")
}
