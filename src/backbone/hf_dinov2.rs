//! The transformers format of `DINOv2`, with and without registers.
//!
//! Reference: transformers' `modeling_dinov2.py` and `modeling_dinov2_with_registers.py`. Their classifiers read the
//! class token beside the mean of the patch tokens, so these are the features of the bare models too. Positions cover
//! the class token and the patches but not the registers, which are inserted afterwards.

use super::hf::{self, Defaults, prefix_if_used};
use super::hf_vit;
use super::prelude::*;

/// What `image_size` says in the configs of the published weights, and the side of the images their processor makes.
const PUBLISHED_POSITIONS: usize = 518;
const PUBLISHED_IMAGES: usize = 224;

const PREFIXES: [&str; 2] = ["dinov2_with_registers.", "dinov2."];

/// transformers' `DINOv2`.
pub const FAMILY: Family = Family {
    name: "transformers DINOv2",
    recognises: |config| config["model_type"] == "dinov2" || has_registers(config),
    spec,
    usual_size,
    mapping,
    ignores: |name, _| name.ends_with("embeddings.mask_token"),
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let config = Config(&description.config);
    let registers = has_registers(&description.config);
    // 224 of 256 pixels.
    let input = BackboneDefaults::new(IMAGENET, ResizeMode::Crop, Interpolation::Bicubic, 0.875);
    let patch = if registers { 16 } else { 14 };
    let spec = tower(&description.config, patch, input, &description.preprocessor)?;
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "Dinov2Model"),
        prefix: PrefixSpec {
            registers: if registers { config.integer("num_register_tokens", 4)? } else { 0 },
            ..spec.prefix
        },
        positions: Positions::Table(PositionTable {
            resampling: if registers { Resampling::BicubicAntialiased } else { Resampling::Bicubic },
            ..hf::positions(1)
        }),
        pooling: PoolingSpec { pool: Pool::ClsAvg, ..spec.pooling },
        outputs: OutputSpec { classes: outputs(header, "classifier.weight"), ..OutputSpec::default() },
        ..spec
    })
}

/// What all towers of its kind have in common, with a class token: LayerScale, an MLP by its ratio or a `SwiGLU`.
pub(super) fn tower(
    config: &Value,
    patch: usize,
    input: BackboneDefaults,
    preprocessor: &Value,
) -> Result<VitSpec, String> {
    let config = Config(config);
    let defaults = Defaults { patch, activation: Activation::Gelu, eps: 1e-6, input };
    let spec = hf::base(&config, &defaults, preprocessor)?;
    let hidden = (spec.width as f64 * config.number("mlp_ratio", 4.0)) as usize;
    let mlp = if config.flag("use_swiglu_ffn", false) {
        // Two thirds, so that three matrices have the size of two, to a multiple of eight.
        MlpSpec::gated(((hidden as f64 * 2.0 / 3.0) as usize).next_multiple_of(8))
    } else {
        MlpSpec { hidden, ..spec.mlp }
    };
    Ok(VitSpec { mlp, layer_scale: true, ..spec })
}

/// The image processor's. Without one it is that of the published weights, whose positions are stored for 518 pixels
/// while their processor crops images to 224.
fn usual_size(description: &Description) -> Option<Size> {
    let published = description.config["image_size"] == PUBLISHED_POSITIONS;
    hf::input_size(&description.preprocessor).or_else(|| published.then_some(PUBLISHED_IMAGES.into()))
}

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let prefix = PREFIXES.iter().map(|prefix| prefix_if_used(header, prefix)).find(|p| !p.is_empty()).unwrap_or("");
    prefixed(name, header, prefix)
}

/// The names behind a prefix.
pub(super) fn prefixed(name: ParamName, header: &Header, prefix: &str) -> WeightMapping {
    if name.layer == Layer::RegToken {
        return WeightMapping::One(format!("{prefix}embeddings.register_tokens"));
    }
    let Some(block) = name.block else { return hf_vit::mapping(name, header, prefix) };
    let block = format!("{prefix}encoder.layer.{block}");
    let at = |module: &str| format!("{block}.{module}.{}", name.part.text());
    let has = |module: &str| header.contains_key(&format!("{block}.{module}.weight"));
    let stack = |modules: &[&str]| WeightMapping::Stack(modules.iter().map(|module| at(module)).collect());
    let one = |module: &str| WeightMapping::One(at(module));
    match name.layer {
        Layer::Qkv if has("attention.q_proj") => stack(&["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
        Layer::Qkv => stack(&["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
        Layer::Proj if has("attention.o_proj") => one("attention.o_proj"),
        Layer::Proj => one("attention.output.dense"),
        Layer::Scale1 => WeightMapping::One(format!("{block}.layer_scale1.lambda1")),
        Layer::Scale2 => WeightMapping::One(format!("{block}.layer_scale2.lambda1")),
        Layer::Fc1 if has("mlp.gate_proj") => stack(&["mlp.gate_proj", "mlp.up_proj"]),
        Layer::Fc1 if has("mlp.weights_in") => one("mlp.weights_in"),
        Layer::Fc2 if has("mlp.down_proj") => one("mlp.down_proj"),
        Layer::Fc2 if has("mlp.weights_out") => one("mlp.weights_out"),
        other => one(other.text()),
    }
}

fn has_registers(config: &Value) -> bool {
    config["model_type"] == "dinov2_with_registers"
}
