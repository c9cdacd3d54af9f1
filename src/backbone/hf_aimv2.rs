//! The transformers format of `AIMv2`'s image tower, alone or in a whole model.
//!
//! Reference: transformers' `modeling_aimv2.py`. RMS norms, one of them behind the patch embedding, a `SwiGLU`, hardly any
//! biases. The library has no classifier; the features are the mean of the patches after the final norm, as in timm. The
//! library runs it at one size only; positions for another are resampled as its other models do.

use super::hf::{self, Defaults, prefix_if_used};
use super::hf_clip::vision_config;
use super::prelude::*;

const PREFIX: &str = "vision_model.";

/// Prefixes of the text tower and of what compares texts with images, in a file of the whole model.
const TEXT: &[&str] = &["text_model.", "text_projection.", "logit_scale"];

/// transformers' `AIMv2`.
pub const FAMILY: Family = Family {
    name: "transformers AIMv2",
    recognises: |config| config["model_type"] == "aimv2" || config["model_type"] == "aimv2_vision_model",
    spec,
    usual_size: |_| None,
    mapping,
    ignores: |name, _| TEXT.iter().any(|text| name.starts_with(text)),
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let own = hf::gated(hf::completed(vision_config(&description.config), SIZES), "silu")?;
    let config = Config(&own);
    if config.flag("is_native", false) {
        return Err("is_native = true (positions computed for images of any shape) is not supported".into());
    }
    if config.flag("use_head", true) {
        return Err("use_head = true (attention pooling) is not supported".into());
    }
    let input = BackboneDefaults::new(CLIP, ResizeMode::Crop, Interpolation::Bicubic, 1.0);
    let defaults = Defaults { patch: 14, activation: Activation::Gelu, eps: 1e-5, input };
    let spec = hf::base(&config, &defaults, &description.preprocessor)?;
    let bias = config.flag("qkv_bias", false);
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "Aimv2VisionModel"),
        patch: PatchSpec { norm: true, ..spec.patch },
        prefix: PrefixSpec::default(),
        positions: Positions::Table(hf::positions(0)),
        norms: NormSpec { rms: true, ..NormSpec::layer(config.number("rms_norm_eps", 1e-5) as f32) },
        attention: AttentionSpec { qkv_bias: bias, proj_bias: bias, ..spec.attention },
        mlp: MlpSpec { bias: config.flag("mlp_bias", false), ..MlpSpec::gated(spec.mlp.hidden) },
        pooling: PoolingSpec::of(Pool::Avg),
        outputs: OutputSpec { projection: outputs(header, "visual_projection.weight"), ..OutputSpec::default() },
        ..spec
    })
}

/// Default sizes of the library's class, where they differ from those of other classes.
const SIZES: &[(&str, usize)] =
    &[("hidden_size", 1024), ("intermediate_size", 2816), ("num_hidden_layers", 24), ("num_attention_heads", 8)];

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let (prefix, part) = (prefix_if_used(header, PREFIX), name.part.text());
    let Some(block) = name.block else {
        return match name.layer {
            Layer::PosEmbed => WeightMapping::Table(format!("{prefix}embeddings.position_embedding.weight")),
            Layer::PatchEmbed => WeightMapping::One(format!("{prefix}embeddings.patch_embed.{part}")),
            Layer::PatchNorm => WeightMapping::One(format!("{prefix}embeddings.rms_norm.{part}")),
            Layer::Norm => WeightMapping::One(format!("{prefix}rms_norm.{part}")),
            Layer::Projection => WeightMapping::One(format!("visual_projection.{part}")),
            _ => WeightMapping::One(name.into()),
        };
    };
    let at = |module: &str| format!("{prefix}encoder.layers.{block}.{module}.{part}");
    let stack = |modules: &[&str]| WeightMapping::Stack(modules.iter().map(|module| at(module)).collect());
    match name.layer {
        Layer::Qkv => stack(&["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
        Layer::Proj => WeightMapping::One(at("attention.out_proj")),
        Layer::Norm1 => WeightMapping::One(at("rms_norm1")),
        Layer::Norm2 => WeightMapping::One(at("rms_norm2")),
        Layer::Fc1 => stack(&["ffn.gate_proj", "ffn.up_proj"]),
        Layer::Fc2 => WeightMapping::One(at("ffn.down_proj")),
        other => WeightMapping::One(at(other.text())),
    }
}
