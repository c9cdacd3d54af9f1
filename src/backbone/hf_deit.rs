//! The transformers format of `DeiT` with a distillation token; `DeiT` without one is saved as a `ViT`.
//!
//! Reference: transformers' `modeling_deit.py`. `DeiTForImageClassification` classifies the class token;
//! `DeiTForImageClassificationWithTeacher` averages the logits of one classifier on each token.

use super::hf::{self, Defaults, prefix_if_used};
use super::hf_vit;
use super::prelude::*;

const PREFIX: &str = "deit.";

/// transformers' `DeiT`.
pub const FAMILY: Family = Family {
    name: "transformers DeiT",
    recognises: |config| config["model_type"] == "deit",
    spec,
    usual_size: |_| None,
    mapping,
    ignores: |name, _| hf_vit::ignores(name),
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    // 224 of 256 pixels.
    let input = BackboneDefaults::new(IMAGENET, ResizeMode::Crop, Interpolation::Bicubic, 0.875);
    let defaults = Defaults { patch: 16, activation: Activation::Gelu, eps: 1e-12, input };
    let taught = outputs(header, "cls_classifier.weight");
    let spec = hf::base(&Config(&description.config), &defaults, &description.preprocessor)?;
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

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let part = name.part.text();
    match name.layer {
        Layer::HeadDist => WeightMapping::One(format!("distillation_classifier.{part}")),
        Layer::Head if header.contains_key("cls_classifier.weight") => {
            WeightMapping::One(format!("cls_classifier.{part}"))
        }
        _ => hf_vit::mapping(name, header, prefix_if_used(header, PREFIX)),
    }
}
