//! The transformers format of `DINOv3`.
//!
//! Reference: transformers' `modeling_dinov3_vit.py`. Positions are rotary, so no parameter depends on the image size.
//! The features are the class token after the final norm; the library has no class with a classifier.

use super::hf::{self, Defaults};
use super::prelude::*;

/// transformers' `DINOv3`.
pub const FAMILY: Family = Family {
    name: "transformers DINOv3",
    recognises: |config| config["model_type"] == "dinov3_vit",
    spec,
    usual_size: |description| hf::input_size(&description.preprocessor),
    mapping,
    ignores: |name, _| name == "embeddings.mask_token",
};

/// The architecture.
fn spec(description: &Description, _: &Header) -> Result<VitSpec, String> {
    let gated = description.config["use_gated_mlp"] == true;
    let own = hf::completed(&description.config, SIZES);
    let own = if gated { hf::gated(own, "gelu")? } else { own };
    let config = Config(&own);
    let input = BackboneDefaults::new(IMAGENET, ResizeMode::Squash, Interpolation::Bilinear, 1.0);
    let defaults = Defaults { patch: 16, activation: Activation::Gelu, eps: 1e-5, input };
    let spec = hf::base(&config, &defaults, &description.preprocessor)?;
    let biases = [("query_bias", true), ("key_bias", false), ("value_bias", true)];
    let (qkv_bias, key_bias) = match biases.map(|(key, default)| config.flag(key, default)) {
        [false, false, false] => (false, false),
        [true, key_bias, true] => (true, key_bias),
        other => return Err(format!("query_bias, key_bias, value_bias = {other:?} is not supported")),
    };
    if let Some(key) = ["proj_bias", "mlp_bias"].iter().find(|key| !config.flag(key, true)) {
        return Err(format!("{key} = false is not supported"));
    }
    Ok(VitSpec {
        architecture: hf::class_name(&own, "DINOv3ViTModel"),
        prefix: PrefixSpec { registers: config.integer("num_register_tokens", 0)?, ..spec.prefix },
        positions: Positions::Rotary(AxialRotary::dinov3(config.number("rope_theta", 100.0))),
        attention: AttentionSpec { qkv_bias, key_bias, ..spec.attention },
        mlp: if gated { MlpSpec { kind: MlpKind::SwiGlu, ..spec.mlp } } else { spec.mlp },
        layer_scale: true,
        ..spec
    })
}

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let part = name.part.text();
    let Some(block) = name.block else {
        return WeightMapping::One(match name.layer {
            Layer::ClsToken => "embeddings.cls_token".into(),
            Layer::RegToken => "embeddings.register_tokens".into(),
            Layer::PatchEmbed => format!("embeddings.patch_embeddings.{part}"),
            _ => name.into(),
        });
    };
    // transformers 5 has an encoder of its own in memory.
    let prefix = if header.keys().any(|name| name.starts_with("model.layer.")) { "model." } else { "" };
    let at = |module: &str| format!("{prefix}layer.{block}.{module}.{part}");
    let stack = |modules: &[&str]| WeightMapping::Stack(modules.iter().map(|module| at(module)).collect());
    match (name.layer, name.part) {
        (Layer::Qkv, Part::Bias) if !header.contains_key(&at("attention.k_proj")) => {
            WeightMapping::NoKey([at("attention.q_proj"), at("attention.v_proj")])
        }
        (Layer::Qkv, _) => stack(&["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
        (Layer::Proj, _) => WeightMapping::One(at("attention.o_proj")),
        (Layer::Scale1, _) => WeightMapping::One(format!("{prefix}layer.{block}.layer_scale1.lambda1")),
        (Layer::Scale2, _) => WeightMapping::One(format!("{prefix}layer.{block}.layer_scale2.lambda1")),
        (Layer::Fc1, _) if header.contains_key(&at("mlp.gate_proj")) => stack(&["mlp.gate_proj", "mlp.up_proj"]),
        (Layer::Fc1, _) => WeightMapping::One(at("mlp.up_proj")),
        (Layer::Fc2, _) => WeightMapping::One(at("mlp.down_proj")),
        (other, _) => WeightMapping::One(at(other.text())),
    }
}

/// Default sizes of the library's class, where they differ from those of other classes.
const SIZES: &[(&str, usize)] = &[("hidden_size", 384), ("num_attention_heads", 6), ("intermediate_size", 1536)];
