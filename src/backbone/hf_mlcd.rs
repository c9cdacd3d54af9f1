//! The transformers format of MLCD's largest image tower; the smaller ones are saved as CLIP's.
//!
//! Reference: transformers' `modeling_mlcd.py`. It is CLIP's tower with rotary positions, which turn the class token too, by
//! angles that are learnt. All blocks share these there; here each has a copy, which training may move apart.

use super::hf::{self, Defaults, prefix_if_used};
use super::hf_clip;
use super::prelude::*;

const PREFIX: &str = "vision_model.";

/// transformers' MLCD.
pub const FAMILY: Family = Family {
    name: "transformers MLCD",
    recognises: |config| config["model_type"] == "mlcd_vision_model" || config["model_type"] == "mlcd",
    spec,
    usual_size: |_| None,
    mapping,
    ignores: |name, _| name.contains("vision_rotary_embedding.") || hf_clip::is_index(name),
};

/// The architecture.
fn spec(description: &Description, _: &Header) -> Result<VitSpec, String> {
    let sizes = [
        ("hidden_size", 1664),
        ("intermediate_size", 8192),
        ("num_hidden_layers", 48),
        ("num_attention_heads", 16),
        ("image_size", 336),
    ];
    let own = hf::completed(&description.config, &sizes);
    let config = Config(&own);
    if config.integer("num_key_value_groups", 1)? != 1 {
        return Err("num_key_value_groups above 1 (heads that share keys and values) is not supported".into());
    }
    let input = BackboneDefaults::new(CLIP, ResizeMode::Crop, Interpolation::Bicubic, 1.0);
    let defaults = Defaults { patch: 14, activation: Activation::Gelu, eps: 1e-5, input };
    let spec = hf::base(&config, &defaults, &description.preprocessor)?;
    Ok(VitSpec {
        architecture: hf::class_name(&own, "MLCDVisionModel"),
        patch: PatchSpec { bias: false, ..spec.patch },
        norm_pre: true,
        positions: Positions::Rotary(AxialRotary {
            temperature: Config(&own["rope_parameters"]).number("rope_theta", 1e4),
            coordinates: Coordinates::Numbers { first: 0.0, stretched_to: None, x_first: false },
            pairs: Pairs::Halves,
            learnt: LearntAngles::ClassToken,
        }),
        attention: AttentionSpec { qkv_bias: true, ..spec.attention },
        ..spec
    })
}

/// Where a parameter lies: CLIP's names.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    match name.layer {
        Layer::RopeFreqs => WeightMapping::Table(format!("{}class_pos_emb", prefix_if_used(header, PREFIX))),
        _ => hf_clip::mapping(name, header),
    }
}
