//! The transformers format of `InternVL`'s image tower (`InternViT`).
//!
//! Reference: transformers' `modeling_internvl.py`. The blocks are google/vit's with LayerScale; there is a final norm only
//! where the class token is read.

use super::hf::{self, Defaults, Spelling};
use super::hf_vit;
use super::prelude::*;

/// transformers' `InternVL`.
pub const FAMILY: Family = Family {
    name: "transformers InternVL",
    recognises: |config| config["model_type"] == "internvl_vision",
    spec,
    usual_size: |_| None,
    mapping,
    ignores: |name, _| hf_vit::ignores(name),
};

const NAMES: Spelling = Spelling {
    blocks: "encoder.layer",
    qkv: ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    proj: "attention.projection_layer",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
};

/// Default sizes of the library's class, where they differ from those of other classes.
const SIZES: &[(&str, usize)] = &[
    ("hidden_size", 1024),
    ("num_hidden_layers", 24),
    ("num_attention_heads", 16),
    ("intermediate_size", 4096),
    ("image_size", 448),
];

/// The architecture.
fn spec(description: &Description, _: &Header) -> Result<VitSpec, String> {
    let own = hf::completed(&description.config, SIZES);
    let config = Config(&own);
    if config.flag("use_qk_norm", false) {
        return Err("use_qk_norm = true (norms of queries and keys across heads) is not supported".into());
    }
    if own["norm_type"].as_str().is_some_and(|norm| norm != "layer_norm") {
        return Err(format!("norm_type {} is not supported; supported: layer_norm", own["norm_type"]));
    }
    if !config.flag("use_absolute_position_embeddings", true) {
        return Err("a model without positions is not supported".into());
    }
    let input = BackboneDefaults::new(IMAGENET, ResizeMode::Squash, Interpolation::Bicubic, 1.0);
    let defaults = Defaults { patch: 14, activation: Activation::Gelu, eps: 1e-6, input };
    let spec = hf::base(&config, &defaults, &description.preprocessor)?;
    let mean = config.flag("use_mean_pooling", true);
    Ok(VitSpec {
        architecture: hf::class_name(&own, "InternVLVisionModel"),
        positions: Positions::Table(hf::positions(1)),
        attention: AttentionSpec { qkv_bias: config.flag("attention_bias", false), ..spec.attention },
        layer_scale: true,
        pooling: PoolingSpec { norm: !mean, ..PoolingSpec::of(if mean { Pool::Avg } else { Pool::Cls }) },
        ..spec
    })
}

/// Where a parameter lies.
fn mapping(name: ParamName, _: &Header) -> WeightMapping {
    let at = |module: &str| format!("{}.{}.{module}", NAMES.blocks, name.block.unwrap_or(0));
    match name.layer {
        Layer::Scale1 => WeightMapping::One(at("lambda_1")),
        Layer::Scale2 => WeightMapping::One(at("lambda_2")),
        _ => hf_vit::spelled(name, &NAMES, ""),
    }
}
