//! The transformers format of google/vit: `ViTModel` and `ViTForImageClassification`.
//!
//! Reference: transformers' `modeling_vit.py`. Both spellings of the attention names are read: the one of the files on
//! the hub, and the one that transformers 5 uses in memory.

use super::family::{Family, Header, Origin};
use super::spec::{Pool, VitSpec};
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;

/// transformers' ViT.
pub struct HfVit;

impl Family for HfVit {
    fn name(&self) -> &'static str {
        "transformers ViT"
    }

    fn recognises(&self, config: &Value, _header: &Header) -> bool {
        config["model_type"] == "vit"
    }

    fn spec(&self, config: &Value, header: &Header) -> Result<VitSpec, String> {
        // Sub-configs are often sparse: what is absent has the value of ViTConfig's defaults.
        let integer = |key: &str, default: usize| match &config[key] {
            Value::Null => Ok(default),
            value => value
                .as_u64()
                .or_else(|| value[0].as_u64())
                .map(|value| value as usize)
                .ok_or_else(|| format!("{key} = {value} in config.json is not a whole number")),
        };
        let prefix = prefix(header);
        let activation = match config["hidden_act"].as_str().unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            other => return Err(format!("hidden_act {other:?} is not supported")),
        };
        if integer("num_channels", 3)? != 3 {
            return Err("only three input channels are supported".into());
        }
        Ok(VitSpec {
            architecture: config["architectures"][0].as_str().unwrap_or("ViTModel").to_owned(),
            width: integer("hidden_size", 768)?,
            depth: integer("num_hidden_layers", 12)?,
            heads: integer("num_attention_heads", 12)?,
            hidden: integer("intermediate_size", 3072)?,
            patch: integer("patch_size", 16)?,
            image_size: integer("image_size", 224)?,
            activation,
            eps: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
            class_token: true,
            registers: 0,
            positions_cover_prefix: true,
            patch_bias: true,
            qkv_bias: config["qkv_bias"].as_bool().unwrap_or(true),
            norm_pre: false,
            layer_scale: false,
            norm: header.contains_key(&format!("{prefix}layernorm.weight")),
            fc_norm: false,
            pool: Pool::Cls,
            num_classes: header.get("classifier.weight").and_then(|shape| shape.first().copied()).unwrap_or(0),
            antialias_positions: false,
            input: BackboneDefaults {
                mean: [0.5; 3],
                std: [0.5; 3],
                interpolation: Interpolation::Bilinear,
                crop_pct: 1.0,
            },
        })
    }

    fn origin(&self, name: &str, header: &Header) -> Origin {
        let prefix = prefix(header);
        let embeddings = match name {
            "cls_token" => Some("embeddings.cls_token"),
            "pos_embed" => Some("embeddings.position_embeddings"),
            "patch_embed.proj.weight" => Some("embeddings.patch_embeddings.projection.weight"),
            "patch_embed.proj.bias" => Some("embeddings.patch_embeddings.projection.bias"),
            "norm.weight" => Some("layernorm.weight"),
            "norm.bias" => Some("layernorm.bias"),
            _ => None,
        };
        if let Some(theirs) = embeddings {
            return Origin::One(format!("{prefix}{theirs}"));
        }
        if let Some(parameter) = name.strip_prefix("head.") {
            return Origin::One(format!("classifier.{parameter}"));
        }
        let Some((block, inner, parameter)) = block_parts(name) else { return Origin::One(name.to_owned()) };
        let names = Spelling::of(header, &prefix);
        let at = |module: &str| format!("{prefix}{}.{block}.{module}.{parameter}", names.blocks);
        match inner {
            "attn.qkv" => Origin::Stack(names.qkv.iter().map(|module| at(module)).collect()),
            "attn.proj" => Origin::One(at(names.proj)),
            "norm1" => Origin::One(at("layernorm_before")),
            "norm2" => Origin::One(at("layernorm_after")),
            "mlp.fc1" => Origin::One(at(names.fc1)),
            "mlp.fc2" => Origin::One(at(names.fc2)),
            other => Origin::One(at(other)),
        }
    }

    fn ignores(&self, name: &str) -> bool {
        // The pooler of in21k files feeds no classifier; the mask token serves masked pretraining only.
        name.contains("pooler.dense.") || name.ends_with("embeddings.mask_token")
    }
}

/// How a version of the library names the inside of a block.
struct Spelling {
    blocks: &'static str,
    qkv: [&'static str; 3],
    proj: &'static str,
    fc1: &'static str,
    fc2: &'static str,
}

impl Spelling {
    const HUB: Self = Self {
        blocks: "encoder.layer",
        qkv: ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
        proj: "attention.output.dense",
        fc1: "intermediate.dense",
        fc2: "output.dense",
    };
    const MEMORY: Self = Self {
        blocks: "layers",
        qkv: ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        proj: "attention.o_proj",
        fc1: "mlp.fc1",
        fc2: "mlp.fc2",
    };

    fn of(header: &Header, prefix: &str) -> &'static Self {
        let in_memory = format!("{prefix}{}.0.{}.weight", Self::MEMORY.blocks, Self::MEMORY.qkv[0]);
        if header.contains_key(&in_memory) { &Self::MEMORY } else { &Self::HUB }
    }
}

/// `vit.` in classifiers, nothing in bare models.
fn prefix(header: &Header) -> String {
    if header.keys().any(|name| name.starts_with("vit.")) { "vit.".into() } else { String::new() }
}

/// `blocks.3.attn.qkv.weight` as (3, `attn.qkv`, `weight`).
fn block_parts(name: &str) -> Option<(&str, &str, &str)> {
    let (block, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let (inner, parameter) = rest.rsplit_once('.')?;
    Some((block, inner, parameter))
}
