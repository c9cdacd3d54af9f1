//! The transformers format of CLIP's image tower: alone, with its projection, or inside the whole model.
//!
//! Reference: transformers' `modeling_clip.py`. The features are the class token after `post_layernorm`; only
//! `CLIPForImageClassification` feeds its classifier something else, the mean of the patch tokens without that norm.

use super::family::{Description, Family, Header, block_parts, outputs};
use super::hf::{self, Defaults, prefix_if_used};
use super::options::{CLIP, Config};
use super::origin::Origin;
use super::pool::Pool;
use super::spec::VitSpec;
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;

/// transformers' CLIP.
pub struct HfClip;

const PREFIX: &str = "vision_model.";
const CLASSIFIER: &str = "classifier.weight";

/// The text tower and what compares both, in a file of the whole model.
const TEXT: &[&str] = &["text_model.", "text_projection.", "logit_scale"];

impl Family for HfClip {
    fn name(&self) -> &'static str {
        "transformers CLIP"
    }

    fn recognises(&self, config: &Value) -> bool {
        config["model_type"] == "clip" || config["model_type"] == "clip_vision_model"
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        let vision = vision_config(&description.config);
        let defaults = Defaults { patch: 32, activation: Activation::QuickGelu, eps: 1e-5 };
        let (mean, std) = CLIP;
        let input = BackboneDefaults { mean, std, interpolation: Interpolation::Bicubic, crop_pct: 1.0 };
        let input = hf::input(&description.preprocessor, input)?;
        let num_classes = outputs(header, CLASSIFIER);
        Ok(VitSpec {
            architecture: hf::class_name(&description.config, "CLIPModel"),
            patch_bias: false,
            qkv_bias: true,
            norm_pre: true,
            norm: num_classes == 0,
            pool: if num_classes > 0 { Pool::Avg } else { Pool::Cls },
            num_classes,
            projection: outputs(header, "visual_projection.weight"),
            ..hf::base(&Config(vision), &defaults, input)?
        })
    }

    fn origin(&self, name: &str, header: &Header) -> Origin {
        match tower(name, prefix_if_used(header, PREFIX)) {
            Some(origin) => origin,
            None => match name.split_once('.') {
                Some(("norm_pre", parameter)) => {
                    Origin::One(format!("{}pre_layrnorm.{parameter}", prefix_if_used(header, PREFIX)))
                }
                Some(("head", parameter)) => Origin::One(format!("classifier.{parameter}")),
                Some(("projection", parameter)) => Origin::One(format!("visual_projection.{parameter}")),
                _ => Origin::One(name.to_owned()),
            },
        }
    }

    fn ignores(&self, name: &str, header: &Header) -> bool {
        let unused_norm = header.contains_key(CLASSIFIER) && name.starts_with("vision_model.post_layernorm.");
        unused_norm || TEXT.iter().any(|text| name.starts_with(text)) || is_index(name)
    }
}

/// The vision part of a config. The older key `vision_config_dict` takes precedence, as in the library.
pub(super) fn vision_config(config: &Value) -> &Value {
    match (&config["vision_config_dict"], &config["vision_config"]) {
        (older @ Value::Object(_), _) => older,
        (_, nested @ Value::Object(_)) => nested,
        _ if config["model_type"] == "clip" || config["model_type"] == "siglip" => &Value::Null,
        _ => config,
    }
}

/// Older files carry the row numbers of their embedding tables.
pub(super) fn is_index(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
}

/// The names that the image towers of CLIP and `SigLIP` share; none for the names in which they differ.
pub(super) fn tower(name: &str, prefix: &str) -> Option<Origin> {
    match name {
        "cls_token" => return Some(Origin::Token(format!("{prefix}embeddings.class_embedding"))),
        "pos_embed" => return Some(Origin::Table(format!("{prefix}embeddings.position_embedding.weight"))),
        _ => {}
    }
    if let Some(parameter) = name.strip_prefix("patch_embed.proj.") {
        return Some(Origin::One(format!("{prefix}embeddings.patch_embedding.{parameter}")));
    }
    if let Some(parameter) = name.strip_prefix("norm.") {
        return Some(Origin::One(format!("{prefix}post_layernorm.{parameter}")));
    }
    block(name, prefix)
}

/// The names inside a block of CLIP's and `SigLIP`'s image and text towers.
pub(super) fn block(name: &str, prefix: &str) -> Option<Origin> {
    let (block, inner, parameter) = block_parts(name)?;
    let at = |module: &str| format!("{prefix}encoder.layers.{block}.{module}.{parameter}");
    Some(match inner {
        "attn.qkv" => Origin::Stack(["q_proj", "k_proj", "v_proj"].map(|of| at(&format!("self_attn.{of}"))).into()),
        "attn.proj" => Origin::One(at("self_attn.out_proj")),
        "norm1" => Origin::One(at("layer_norm1")),
        "norm2" => Origin::One(at("layer_norm2")),
        other => Origin::One(at(other)),
    })
}
