//! The timm format of `DINOv3`, which timm builds as its `Eva` class.
//!
//! Reference: timm's `eva.py`. A file names its architecture and stores only what differs from it. Positions are rotary;
//! queries and values may have a bias, keys have none.

use super::family::{Description, Family, Header, outputs};
use super::mapping::WeightMapping;
use super::name::{Layer, ParamName, Part};
use super::options::Config;
use super::positions::AxialRotary;
use super::spec::{
    AttentionSpec, MlpKind, MlpSpec, OutputSpec, PatchSpec, Pool, PoolingSpec, Positions, PrefixSpec, VitSpec,
};
use super::timm::{self, refuse_unsupported};
use crate::nn::Activation;
use serde_json::Value;

/// timm's `DINOv3`.
pub struct TimmDinov3;

/// What one of timm's entry functions builds.
struct Size {
    name: &'static str,
    width: usize,
    depth: usize,
    heads: usize,
    /// Hidden width of the MLP over that of the tokens.
    ratio: f64,
    /// To a multiple of what the hidden width of a `SwiGLU` is raised; none of plain MLPs.
    gated: Option<usize>,
}

const fn plain(name: &'static str, width: usize, depth: usize, heads: usize) -> Size {
    Size { name, width, depth, heads, ratio: 4.0, gated: None }
}

/// timm 1.0.31. With `_qkvb` at its end a name means the same with biases of queries and values.
const SIZES: &[Size] = &[
    plain("vit_tiny_patch16_dinov3", 192, 12, 3),
    plain("vit_small_patch16_dinov3", 384, 12, 6),
    Size { gated: Some(8), ..plain("vit_small_plus_patch16_dinov3", 384, 12, 6) },
    plain("vit_base_patch16_dinov3", 768, 12, 12),
    plain("vit_large_patch16_dinov3", 1024, 24, 16),
    Size { gated: Some(8), ..plain("vit_huge_plus_patch16_dinov3", 1280, 32, 20) },
    Size { gated: Some(64), ratio: 2.0, ..plain("vit_7b_patch16_dinov3", 4096, 40, 32) },
];

const BIASED: &str = "_qkvb";

fn size(config: &Value) -> Option<(&'static Size, bool)> {
    let name = config["architecture"].as_str()?;
    let (bare, biased) = name.strip_suffix(BIASED).map_or((name, false), |bare| (bare, true));
    SIZES.iter().find(|size| size.name == bare).map(|size| (size, biased))
}

impl Family for TimmDinov3 {
    fn name(&self) -> &'static str {
        "timm DINOv3"
    }

    fn recognises(&self, config: &Value) -> bool {
        size(config).is_some()
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        let config = &description.config;
        let Some((size, biased)) = size(config) else { return Err("the architecture is none of DINOv3".into()) };
        let own = &config["model_args"];
        refuse_unsupported(own, KNOWN)?;
        let pretrained = config.get("pretrained_cfg").unwrap_or(config);
        let args = Config(own);
        let width = args.integer("embed_dim", size.width)?;
        let hidden = (width as f64 * args.number("mlp_ratio", size.ratio)) as usize;
        let pool = own["global_pool"].as_str().or(config["global_pool"].as_str()).unwrap_or("avg");
        let image_size = pretrained["input_size"][1].as_u64().map_or(256, |side| side as usize);
        Ok(VitSpec {
            architecture: config["architecture"].as_str().unwrap_or_default().to_owned(),
            width,
            depth: args.integer("depth", size.depth)?,
            image_size: args.integer("img_size", image_size)?,
            patch: PatchSpec { size: args.integer("patch_size", 16)?, bias: true },
            prefix: PrefixSpec { class: true, distillation: false, registers: args.integer("num_reg_tokens", 4)? },
            positions: Positions::Rotary(AxialRotary { temperature: args.number("rope_temperature", 100.0) }),
            norm_pre: false,
            eps: 1e-5,
            attention: AttentionSpec {
                heads: args.integer("num_heads", size.heads)?,
                qkv_bias: args.flag("qkv_bias", biased),
                key_bias: false,
            },
            mlp: match size.gated {
                Some(multiple) => MlpSpec { hidden: hidden.next_multiple_of(multiple), kind: MlpKind::SwiGlu },
                None => MlpSpec::plain(hidden, Activation::Gelu),
            },
            layer_scale: true,
            pooling: PoolingSpec {
                pool: match pool {
                    "token" => Pool::Cls,
                    "avg" => Pool::Avg,
                    other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg")),
                },
                norm: true,
                fc_norm: false,
            },
            outputs: OutputSpec { classes: outputs(header, "head.weight"), projection: 0 },
            input: timm::input(pretrained),
        })
    }

    fn mapping(&self, name: ParamName, header: &Header) -> WeightMapping {
        let Some(block) = name.block else { return WeightMapping::One(name.into()) };
        let at = |theirs: &str| format!("blocks.{block}.{theirs}");
        let part = name.part.text();
        match (name.layer, name.part) {
            (Layer::Qkv, Part::Bias) => WeightMapping::NoKey([at("attn.q_bias"), at("attn.v_bias")]),
            (Layer::Scale1, _) => WeightMapping::One(at("gamma_1")),
            (Layer::Scale2, _) => WeightMapping::One(at("gamma_2")),
            (Layer::Fc1, _) if header.contains_key(&at("mlp.fc1_g.weight")) => {
                WeightMapping::Stack(vec![at(&format!("mlp.fc1_g.{part}")), at(&format!("mlp.fc1_x.{part}"))])
            }
            _ => WeightMapping::One(name.into()),
        }
    }

    fn ignores(&self, _name: &str, _header: &Header) -> bool {
        false
    }
}

/// The options of `model_args` whose effect is known here, or that only matter to training.
const KNOWN: &[&str] = &[
    "depth",
    "drop_path_rate",
    "drop_rate",
    "dynamic_img_size",
    "embed_dim",
    "global_pool",
    "img_size",
    "in_chans",
    "init_values",
    "mlp_ratio",
    "num_classes",
    "num_heads",
    "num_reg_tokens",
    "patch_size",
    "pretrained",
    "qkv_bias",
    "rope_jitter_coords",
    "rope_rescale_coords",
    "rope_shift_coords",
    "rope_temperature",
];
