//! The transformers format of `DeiT` with a distillation token; `DeiT` without one is saved as a `ViT`.
//!
//! Reference: transformers' `modeling_deit.py`. `DeiTForImageClassification` classifies the class token;
//! `DeiTForImageClassificationWithTeacher` averages the logits of one classifier on each token.

use super::family::{Description, Family, Header, outputs};
use super::hf::{self, Defaults, prefix_if_used};
use super::hf_vit;
use super::mapping::WeightMapping;
use super::name::{Layer, ParamName};
use super::options::{Config, IMAGENET};
use super::positions::Positions;
use super::spec::{OutputSpec, Pool, PoolingSpec, PrefixSpec, VitSpec};
use crate::config::ResizeMode;
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;

/// transformers' `DeiT`.
pub struct HfDeit;

const PREFIX: &str = "deit.";

impl Family for HfDeit {
    fn name(&self) -> &'static str {
        "transformers DeiT"
    }

    fn recognises(&self, config: &Value) -> bool {
        config["model_type"] == "deit"
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        let defaults = Defaults { patch: 16, activation: Activation::Gelu, eps: 1e-12 };
        // As the published weights were trained; 224 of 256 pixels.
        let (mean, std) = IMAGENET;
        let resize = ResizeMode::Crop;
        let input = BackboneDefaults { mean, std, resize, interpolation: Interpolation::Bicubic, crop_pct: 0.875 };
        let input = hf::input(&description.preprocessor, input)?;
        let taught = outputs(header, "cls_classifier.weight");
        let spec = hf::base(&Config(&description.config), &defaults, input)?;
        let pool = if taught > 0 { Pool::Distilled } else { Pool::Cls };
        Ok(VitSpec {
            architecture: hf::class_name(&description.config, "DeiTModel"),
            prefix: PrefixSpec { distillation: true, ..spec.prefix },
            positions: Positions::Table(hf::positions(2)),
            pooling: PoolingSpec { pool, ..spec.pooling },
            outputs: OutputSpec { classes: taught.max(outputs(header, "classifier.weight")), ..OutputSpec::default() },
            ..spec
        })
    }

    fn mapping(&self, name: ParamName, header: &Header) -> WeightMapping {
        let part = name.part.text();
        match name.layer {
            Layer::HeadDist => WeightMapping::One(format!("distillation_classifier.{part}")),
            Layer::Head if header.contains_key("cls_classifier.weight") => {
                WeightMapping::One(format!("cls_classifier.{part}"))
            }
            _ => hf_vit::mapping(name, header, prefix_if_used(header, PREFIX)),
        }
    }

    fn ignores(&self, name: &str, _header: &Header) -> bool {
        hf_vit::ignores(name)
    }
}
