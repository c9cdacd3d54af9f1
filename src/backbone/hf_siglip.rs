//! The transformers format of `SigLIP`, and of `SigLIP` 2 at a fixed resolution, which has the same classes.
//!
//! Reference: transformers' `modeling_siglip.py`. The features are those of the attention pooling head; only
//! `SiglipForImageClassification`, and a tower saved without the head, take the mean of the tokens.

use super::family::{Description, Family, Header, outputs};
use super::hf::{self, Defaults, prefix_if_used};
use super::hf_clip::{is_index, tower, vision_config};
use super::options::{Config, SYMMETRIC};
use super::origin::Origin;
use super::pool::Pool;
use super::spec::VitSpec;
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;

/// transformers' `SigLIP`.
pub struct HfSiglip;

const PREFIX: &str = "vision_model.";
const CLASSIFIER: &str = "classifier.weight";

/// The text tower and what compares both, in a file of the whole model.
const TEXT: &[&str] = &["text_model.", "logit_scale", "logit_bias"];

impl Family for HfSiglip {
    fn name(&self) -> &'static str {
        "transformers SigLIP"
    }

    fn recognises(&self, config: &Value) -> bool {
        config["model_type"] == "siglip" || config["model_type"] == "siglip_vision_model"
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        let vision = Config(vision_config(&description.config));
        let defaults = Defaults { patch: 16, activation: Activation::GeluTanh, eps: 1e-6 };
        let (mean, std) = SYMMETRIC;
        let input = BackboneDefaults { mean, std, interpolation: Interpolation::Bicubic, crop_pct: 1.0 };
        let input = hf::input(&description.preprocessor, input)?;
        let num_classes = outputs(header, CLASSIFIER);
        let attention = num_classes == 0 && vision.flag("vision_use_head", true);
        Ok(VitSpec {
            architecture: hf::class_name(&description.config, "SiglipModel"),
            class_token: false,
            positioned_prefix: 0,
            qkv_bias: true,
            pool: if attention { Pool::Attention } else { Pool::Avg },
            num_classes,
            ..hf::base(&vision, &defaults, input)?
        })
    }

    fn origin(&self, name: &str, header: &Header) -> Origin {
        let prefix = prefix_if_used(header, PREFIX);
        if let Some(name) = name.strip_prefix("attn_pool.") {
            return pooling(name, prefix);
        }
        match tower(name, prefix) {
            Some(origin) => origin,
            None => match name.strip_prefix("head.") {
                Some(parameter) => Origin::One(format!("classifier.{parameter}")),
                None => Origin::One(name.to_owned()),
            },
        }
    }

    fn ignores(&self, name: &str, header: &Header) -> bool {
        let unused_head = header.contains_key(CLASSIFIER) && name.starts_with("vision_model.head.");
        unused_head || TEXT.iter().any(|text| name.starts_with(text)) || is_index(name)
    }
}

/// The pooling head is a PyTorch `MultiheadAttention`, which packs its three projections in one tensor.
fn pooling(name: &str, prefix: &str) -> Origin {
    let at = |theirs: &str| format!("{prefix}head.{theirs}");
    let packed = |parameter: &str, first: usize, count: usize| Origin::Thirds {
        name: at(&format!("attention.in_proj_{parameter}")),
        first,
        count,
    };
    match name.rsplit_once('.') {
        None => Origin::One(at("probe")),
        Some(("q", parameter)) => packed(parameter, 0, 1),
        Some(("kv", parameter)) => packed(parameter, 1, 2),
        Some(("proj", parameter)) => Origin::One(at(&format!("attention.out_proj.{parameter}"))),
        Some(("norm", parameter)) => Origin::One(at(&format!("layernorm.{parameter}"))),
        Some(_) => Origin::One(at(name)),
    }
}
