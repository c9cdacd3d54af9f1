//! The timm format: ViT, DeiT and AugReg, with class token or average pooling, registers, LayerScale and `norm_pre`.
//!
//! Reference: timm's `vision_transformer.py`. Our canonical parameter names are timm's.

use super::family::{Family, Header, Origin};
use super::spec::{Pool, VitSpec};
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;

/// timm's vision transformers.
pub struct Timm;

/// Width, depth and heads of the sizes in timm's names, such as `vit_base_patch16_224`.
const SIZES: &[(&str, usize, usize, usize)] = &[
    ("tiny", 192, 12, 3),
    ("small", 384, 12, 6),
    ("medium", 512, 12, 8),
    ("base", 768, 12, 12),
    ("large", 1024, 24, 16),
    ("huge", 1280, 32, 16),
];

impl Family for Timm {
    fn name(&self) -> &'static str {
        "timm ViT"
    }

    fn recognises(&self, config: &Value, header: &Header) -> bool {
        config.get("architecture").is_some_and(Value::is_string) && header.contains_key("blocks.0.attn.qkv.weight")
    }

    fn spec(&self, config: &Value, header: &Header) -> Result<VitSpec, String> {
        let architecture = config["architecture"].as_str().unwrap_or_default().to_owned();
        let args = Args { values: &config["model_args"] };
        refuse_unsupported(&args)?;
        // Older files have the fields of pretrained_cfg at the top level.
        let pretrained = config.get("pretrained_cfg").unwrap_or(config);
        let size = SIZES.iter().find(|(name, ..)| architecture.split('_').any(|part| part == *name));
        let dimension = |key: &str, of_size: Option<usize>| {
            args.integer(key).or(of_size).ok_or_else(|| {
                format!("architecture {architecture:?} has no known size, and model_args has no {key:?}")
            })
        };
        let width = dimension("embed_dim", size.map(|size| size.1))?;
        let depth = dimension("depth", size.map(|size| size.2))?;
        let heads = dimension("num_heads", size.map(|size| size.3))?;
        let patch = args
            .integer("patch_size")
            .or_else(|| number_after(&architecture, "patch"))
            .or_else(|| header.get("patch_embed.proj.weight").and_then(|shape| shape.last().copied()))
            .ok_or("there is no patch_embed.proj.weight")?;
        let image_size = args
            .integer("img_size")
            .or_else(|| pretrained["input_size"][1].as_u64().map(|side| side as usize))
            .ok_or("neither model_args.img_size nor pretrained_cfg.input_size gives the image size")?;
        let class_token = header.contains_key("cls_token");
        let registers = header.get("reg_token").and_then(|shape| shape.get(1).copied()).unwrap_or(0);
        let patches = (image_size / patch.max(1)).pow(2);
        let positions = header.get("pos_embed").and_then(|shape| shape.get(1).copied()).unwrap_or(0);
        let pool = args.text("global_pool").or_else(|| config["global_pool"].as_str()).unwrap_or("token");
        let clip = architecture.contains("_clip_");
        Ok(VitSpec {
            width,
            depth,
            heads,
            hidden: (args.number("mlp_ratio").unwrap_or(4.0) * width as f64) as usize,
            patch,
            image_size,
            activation: activation(args.text("act_layer"), &architecture)?,
            eps: if clip { 1e-5 } else { 1e-6 },
            class_token,
            registers,
            positions_cover_prefix: positions != patches,
            patch_bias: header.contains_key("patch_embed.proj.bias"),
            qkv_bias: header.contains_key("blocks.0.attn.qkv.bias"),
            norm_pre: header.contains_key("norm_pre.weight"),
            layer_scale: header.contains_key("blocks.0.ls1.gamma"),
            norm: header.contains_key("norm.weight"),
            fc_norm: header.contains_key("fc_norm.weight"),
            pool: match pool {
                "token" => Pool::Cls,
                "avg" => Pool::Avg,
                other => return Err(format!("global_pool {other:?} is not supported; supported: \"token\", \"avg\"")),
            },
            num_classes: header.get("head.weight").and_then(|shape| shape.first().copied()).unwrap_or(0),
            antialias_positions: true,
            input: input(pretrained),
            architecture,
        })
    }

    fn origin(&self, name: &str, _header: &Header) -> Origin {
        Origin::One(name.to_owned())
    }

    fn ignores(&self, _name: &str) -> bool {
        false
    }
}

/// `model_args` of the config, where every key is optional.
struct Args<'a> {
    values: &'a Value,
}

impl<'a> Args<'a> {
    fn integer(&self, key: &str) -> Option<usize> {
        // Image sizes may be written as a pair.
        let value = &self.values[key];
        value.as_u64().or_else(|| value[0].as_u64()).map(|value| value as usize)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.values[key].as_f64()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.values[key].as_str()
    }
}

/// Options that change the arithmetic without changing a tensor's name or shape must be known or refused.
fn refuse_unsupported(args: &Args<'_>) -> Result<(), String> {
    let Some(values) = args.values.as_object() else { return Ok(()) };
    const KNOWN: &[&str] = &[
        "act_layer",
        "class_token",
        "depth",
        "drop_path_rate",
        "drop_rate",
        "dynamic_img_size",
        "embed_dim",
        "fc_norm",
        "final_norm",
        "global_pool",
        "img_size",
        "in_chans",
        "init_values",
        "mlp_ratio",
        "no_embed_class",
        "num_classes",
        "num_heads",
        "patch_size",
        "pre_norm",
        "pretrained",
        "proj_bias",
        "qkv_bias",
        "reg_tokens",
        "weight_init",
    ];
    if args.integer("in_chans").is_some_and(|channels| channels != 3) {
        return Err("only three input channels are supported (model_args.in_chans)".into());
    }
    match values.iter().find(|(key, value)| !KNOWN.contains(&key.as_str()) && **value != Value::Bool(false)) {
        Some((key, value)) => Err(format!("model_args.{key} = {value} is not supported")),
        None => Ok(()),
    }
}

fn activation(named: Option<&str>, architecture: &str) -> Result<Activation, String> {
    match named {
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_tanh") => Ok(Activation::GeluTanh),
        Some("quick_gelu") => Ok(Activation::QuickGelu),
        Some(other) => {
            Err(format!("act_layer {other:?} is not supported; supported: \"gelu\", \"gelu_tanh\", \"quick_gelu\""))
        }
        None if architecture.contains("quickgelu") => Ok(Activation::QuickGelu),
        None => Ok(Activation::Gelu),
    }
}

/// The number that follows `word` in a name: 16 after `patch` in `vit_base_patch16_224`.
fn number_after(name: &str, word: &str) -> Option<usize> {
    let rest = &name[name.find(word)? + word.len()..];
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

fn input(pretrained: &Value) -> BackboneDefaults {
    let triple = |key: &str, default: [f32; 3]| {
        let channel = |i: usize| pretrained[key][i].as_f64().map(|value| value as f32);
        match (channel(0), channel(1), channel(2)) {
            (Some(r), Some(g), Some(b)) => [r, g, b],
            _ => default,
        }
    };
    BackboneDefaults {
        // timm's own defaults for vision transformers.
        mean: triple("mean", [0.5; 3]),
        std: triple("std", [0.5; 3]),
        interpolation: match pretrained["interpolation"].as_str() {
            Some("bilinear") => Interpolation::Bilinear,
            _ => Interpolation::Bicubic,
        },
        crop_pct: pretrained["crop_pct"].as_f64().unwrap_or(0.9),
    }
}
