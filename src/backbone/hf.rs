//! What the formats of transformers share: sparse configs, image processors, and the names inside a block.

use super::prelude::*;
use serde_json::json;

/// Defaults in which the config classes differ; the sizes of ViT-B/… at 224 pixels are common to all.
pub(super) struct Defaults {
    /// Side of a patch.
    pub patch: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub eps: f64,
    /// How inputs are prepared where no image processor says otherwise: as the published weights were trained.
    pub input: BackboneDefaults,
}

/// The architecture of a transformers config: class token, positions for it and the patches, a final norm, no head.
/// `config` may be a sub-config.
pub(super) fn base(config: &Config<'_>, defaults: &Defaults, preprocessor: &Value) -> Result<VitSpec, String> {
    let input = input(preprocessor, defaults.input)?;
    if config.integer("num_channels", 3)? != 3 {
        return Err("only three input channels are supported".into());
    }
    let width = config.integer("hidden_size", 768)?;
    Ok(VitSpec {
        architecture: String::new(),
        width,
        depth: config.integer("num_hidden_layers", 12)?,
        image_size: config.size("image_size", 224)?,
        patch: PatchSpec { size: config.integer("patch_size", defaults.patch)?, bias: true, norm: false },
        prefix: PrefixSpec { class: true, ..PrefixSpec::default() },
        positions: Positions::Table(positions(1)),
        norm_pre: false,
        norms: NormSpec::layer(config.number("layer_norm_eps", defaults.eps) as f32),
        attention: AttentionSpec {
            qkv_bias: config.flag("qkv_bias", true),
            ..AttentionSpec::of(config.integer("num_attention_heads", 12)?)
        },
        mlp: MlpSpec::plain(config.integer("intermediate_size", 3072)?, activation(config, defaults.activation)?),
        layer_scale: false,
        pooling: PoolingSpec::of(Pool::Cls),
        outputs: OutputSpec::default(),
        input,
    })
}

/// Position embeddings of the first `prefix` tokens and the patches, resampled in each forward pass.
pub(super) fn positions(prefix: usize) -> PositionTable {
    PositionTable { prefix, resampling: Resampling::Bicubic, rounded: false, of_square: false }
}

/// An activation by its name in transformers.
pub(super) fn activation(config: &Config<'_>, default: Activation) -> Result<Activation, String> {
    match &config.0["hidden_act"] {
        Value::Null => Ok(default),
        value => match value.as_str() {
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some("quick_gelu") => Ok(Activation::QuickGelu),
            _ => Err(format!(
                "hidden_act {value} is not supported; supported: gelu, gelu_new, gelu_pytorch_tanh, quick_gelu"
            )),
        },
    }
}

/// The config, completed with the default sizes of the library's class.
pub(super) fn completed(config: &Value, sizes: &[(&str, usize)]) -> Value {
    let mut config = config.clone();
    for (key, default) in sizes {
        let value = &mut config[*key];
        if value.is_null() {
            *value = json!(default);
        }
    }
    config
}

/// The config of a tower with gated MLPs, less their activation, which must be `SiLU`; `default` holds where the config names
/// none.
pub(super) fn gated(mut config: Value, default: &str) -> Result<Value, String> {
    let activation = config["hidden_act"].take();
    match activation.as_str().unwrap_or(default) {
        "silu" => Ok(config),
        _ => Err(format!("hidden_act {activation} in a gated MLP is not supported; supported: silu")),
    }
}

/// The class that wrote a config, or `fallback`.
pub(super) fn class_name(config: &Value, fallback: &str) -> String {
    config["architectures"][0].as_str().unwrap_or(fallback).to_owned()
}

/// How inputs were prepared, by the image processor's settings; `defaults` fill what is absent.
///
/// Sizes are written as a number (older files), as `{"shortest_edge": n}` or as `{"height": n, "width": n}`.
fn input(preprocessor: &Value, defaults: BackboneDefaults) -> Result<BackboneDefaults, String> {
    let values = Config(preprocessor);
    let flag = |key: &str| preprocessor[key].as_bool();
    let (mean, std) = match flag("do_normalize") {
        Some(false) => ([0.0; 3], [1.0; 3]),
        _ => (values.triple("image_mean", defaults.mean), values.triple("image_std", defaults.std)),
    };
    let scale = rescaling(preprocessor)?;
    let (mean, std) = (mean.map(|value| value / scale), std.map(|value| value / scale));
    let interpolation = match preprocessor["resample"].as_u64() {
        None => defaults.interpolation,
        // Pillow's numbers. Lanczos, 1, has no counterpart here; the cubic filter is nearest to it.
        Some(1 | 3) => Interpolation::Bicubic,
        Some(2) => Interpolation::Bilinear,
        Some(other) => return Err(format!("resample = {other} in the image processor is not supported")),
    };
    let (resized, cropped) = (side(&preprocessor["size"]), side(&preprocessor["crop_size"]));
    let crops = crops(preprocessor);
    let crop_pct = match (resized, cropped) {
        _ if !crops => 1.0,
        (Some(resized), Some(cropped)) if resized > 0.0 => (cropped / resized).min(1.0),
        _ => defaults.crop_pct,
    };
    let resize = match preprocessor {
        Value::Null => defaults.resize,
        _ if crops => ResizeMode::Crop,
        _ => ResizeMode::Squash,
    };
    Ok(BackboneDefaults { mean, std, resize, interpolation, crop_pct })
}

/// Size of the images that an image processor makes.
pub(super) fn input_size(preprocessor: &Value) -> Option<Size> {
    let size = &preprocessor[if crops(preprocessor) { "crop_size" } else { "size" }];
    let sides = ["height", "width"].map(|key| size[key].as_f64().or_else(|| side(size)));
    Some([sides[0]? as usize, sides[1]? as usize].into())
}

fn crops(preprocessor: &Value) -> bool {
    let has = |key: &str| side(&preprocessor[key]).is_some();
    preprocessor["do_center_crop"].as_bool().unwrap_or_else(|| has("crop_size") || !has("size"))
}

/// What the processor's pixels of 0 to 255 are multiplied with, against the 1/255 that is usual: statistics are
/// divided by it, since pixels here always become 0 to 1.
fn rescaling(preprocessor: &Value) -> Result<f32, String> {
    let factor = match (preprocessor["do_rescale"].as_bool(), preprocessor["rescale_factor"].as_f64()) {
        (Some(false), _) => 1.0,
        (_, None) => return Ok(1.0),
        (_, Some(factor)) => factor,
    };
    let scale = factor * 255.0;
    if !(1e-6..=1e6).contains(&scale) {
        return Err(format!("rescale_factor = {factor} in the image processor is not supported"));
    }
    // 1/255 is written with as many digits as its author liked.
    Ok(if (scale - 1.0).abs() < 1e-3 { 1.0 } else { scale as f32 })
}

/// The short side of a size in any spelling.
fn side(size: &Value) -> Option<f64> {
    ["shortest_edge", "height"].iter().find_map(|key| size[*key].as_f64()).or_else(|| size.as_f64())
}

/// How a version of the library names the inside of a block.
pub(super) struct Spelling {
    /// Stands before the block's number.
    pub blocks: &'static str,
    /// Queries, keys, values.
    pub qkv: [&'static str; 3],
    /// The projection of what was attended.
    pub proj: &'static str,
    /// First product of the MLP.
    pub fc1: &'static str,
    /// Second product of the MLP.
    pub fc2: &'static str,
}

impl Spelling {
    /// `ViT` and `DeiT` in the files of the hub.
    const HUB: Self = Self {
        blocks: "encoder.layer",
        qkv: ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
        proj: "attention.output.dense",
        fc1: "intermediate.dense",
        fc2: "output.dense",
    };
    /// The same as transformers 5 names them in memory.
    const MEMORY: Self = Self {
        blocks: "layers",
        qkv: ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        proj: "attention.o_proj",
        fc1: "mlp.fc1",
        fc2: "mlp.fc2",
    };

    /// The spelling of a `ViT` or `DeiT` file.
    pub fn of(header: &Header, prefix: &str) -> &'static Self {
        let in_memory = format!("{prefix}{}.0.{}.weight", Self::MEMORY.blocks, Self::MEMORY.qkv[0]);
        if header.contains_key(&in_memory) { &Self::MEMORY } else { &Self::HUB }
    }
}

/// `prefix` when any tensor has it, else nothing: bare models have none.
pub(super) fn prefix_if_used<'a>(header: &Header, prefix: &'a str) -> &'a str {
    if header.keys().any(|name| name.starts_with(prefix)) { prefix } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_pixels_is_honoured() {
        let (resize, interpolation) = (ResizeMode::Squash, Interpolation::Bicubic);
        let defaults = BackboneDefaults::new(([0.5; 3], [0.25; 3]), resize, interpolation, 1.0);
        let of = |settings: Value| input(&settings, defaults).map(|input| (input.mean[0], input.std[0]));
        assert_eq!(of(json!({"do_rescale": true, "rescale_factor": 0.003_921_568})), Ok((0.5, 0.25)));
        // Pixels of 0 to 255 with statistics of that range.
        let raw = json!({"do_rescale": false, "image_mean": [127.5, 127.5, 127.5], "image_std": [51.0, 51.0, 51.0]});
        assert_eq!(of(raw), Ok((0.5, 0.2)));
        assert_eq!(of(json!({"rescale_factor": 2.0 / 255.0})), Ok((0.25, 0.125)));
        assert!(of(json!({"rescale_factor": 0.0})).is_err());
    }

    #[test]
    fn a_processor_tells_the_size_of_its_images() {
        assert_eq!(
            input_size(&json!({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}})),
            Some(224.into())
        );
        assert_eq!(input_size(&json!({"size": 384})), Some(384.into()));
        assert_eq!(input_size(&json!({"size": {"height": 16, "width": 32}})), Some([16, 32].into()));
        assert_eq!(input_size(&Value::Null), None);
    }
}
