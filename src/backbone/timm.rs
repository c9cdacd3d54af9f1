//! The timm format: `ViT`, `DeiT`, `AugReg`, CLIP, `DINOv2` and `SigLIP` towers.
//!
//! Reference: timm's `vision_transformer.py` and `deit.py`. Our canonical parameter names are timm's. A file names its
//! architecture and stores only what differs from it, so `timm_architectures.json` has the arguments of each, as
//! written from timm itself by `tests/fixtures/make_timm_table.py`.

use super::family::{Description, Family, Header, outputs};
use super::mapping::WeightMapping;
use super::name::ParamName;
use super::options::{Config, SYMMETRIC};
use super::positions::Resampling;
use super::spec::{
    AttentionSpec, MlpKind, MlpSpec, OutputSpec, PatchSpec, Pool, PoolingSpec, PositionTable, Positions, PrefixSpec,
    VitSpec,
};
use crate::config::ResizeMode;
use crate::data::transform::{BackboneDefaults, Interpolation};
use crate::nn::Activation;
use serde_json::Value;
use std::sync::LazyLock;

/// timm's vision transformers.
pub struct Timm;

/// What each architecture passes to timm's class. Unreadable only if the file in this folder is.
static TABLE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("timm_architectures.json")).unwrap_or_default());

impl Family for Timm {
    fn name(&self) -> &'static str {
        "timm ViT"
    }

    fn recognises(&self, config: &Value) -> bool {
        config.get("architecture").is_some_and(Value::is_string)
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        let config = &description.config;
        // Older files have the fields of pretrained_cfg at the top level.
        let pretrained = config.get("pretrained_cfg").unwrap_or(config);
        let model = Model {
            architecture: config["architecture"].as_str().unwrap_or_default(),
            args: &config["model_args"],
            pool: config["global_pool"].as_str().or_else(|| pretrained["global_pool"].as_str()),
            image_size: pretrained["input_size"][1].as_u64().map(|side| side as usize),
            tag: pretrained["tag"].as_str(),
            gated: is_gated(header),
        };
        let input = input(pretrained);
        let outputs = OutputSpec { classes: outputs(header, "head.weight"), projection: 0 };
        Ok(VitSpec { outputs, input, ..model.spec()? })
    }

    fn mapping(&self, name: ParamName, _header: &Header) -> WeightMapping {
        WeightMapping::One(name.into())
    }

    fn ignores(&self, _name: &str, _header: &Header) -> bool {
        false
    }
}

/// What a file says about its model.
pub(super) struct Model<'a> {
    /// The name of the architecture.
    pub architecture: &'a str,
    /// Arguments that differ from the architecture's.
    pub args: &'a Value,
    /// The pooling, if neither the arguments nor the architecture set it.
    pub pool: Option<&'a str>,
    /// Side of the images of these weights, if the arguments do not set it.
    pub image_size: Option<usize>,
    /// The tag of these weights.
    pub tag: Option<&'a str>,
    /// Whether the weights are those of a packed `SwiGLU`, which no option of a file says: its class is given in Python.
    pub gated: bool,
}

/// Whether the first product of the MLP has twice the outputs that the second one has inputs.
fn is_gated(header: &Header) -> bool {
    let first = outputs(header, "blocks.0.mlp.fc1.weight");
    header.get("blocks.0.mlp.fc2.weight").is_some_and(|shape| shape.len() == 2 && first == 2 * shape[1] && first > 0)
}

impl Model<'_> {
    /// The architecture: the arguments of the file over those of the table over the defaults of timm's class.
    pub fn spec(&self) -> Result<VitSpec, String> {
        let entry = entry("architectures", self.architecture)?;
        refuse_unsupported(self.args, KNOWN)?;
        let args = Args { own: self.args, entry };
        let width = args.integer("embed_dim", 768)?;
        let patch = args.integer("patch_size", 16)?;
        let image_size = match (self.args.get("img_size"), self.image_size) {
            (None, Some(size)) => size,
            _ => args.integer("img_size", 224)?,
        };
        let mlp = (width as f64 * args.number("mlp_ratio", 4.0)) as usize;
        let mlp = if self.gated || args.flag("swiglu", false) {
            MlpSpec { hidden: mlp / 2, kind: MlpKind::SwiGlu }
        } else {
            MlpSpec::plain(mlp, self.activation(&args)?)
        };
        let prefix = PrefixSpec {
            class: args.flag("class_token", true),
            distillation: args.flag("distilled", false),
            registers: args.integer("reg_tokens", 0)?,
        };
        let pool = match args.text("global_pool").or(self.pool).unwrap_or("token") {
            "token" | "" if prefix.distillation => Pool::Distilled,
            // Saved without pooling, for its tokens: `model.pool` chooses one, else what fits.
            "" if !prefix.class => Pool::Avg,
            "token" | "" => Pool::Cls,
            "avg" => Pool::Avg,
            "map" => Pool::Attention,
            other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg, map")),
        };
        let norm_after_pool = args.flag("fc_norm", args.text("global_pool").or(self.pool) == Some("avg"));
        let (pre_norm, final_norm) = (args.flag("pre_norm", false), args.flag("final_norm", true));
        let resampling = match args.text("positions") {
            Some("bilinear") => Resampling::Bilinear,
            Some("bilinear_aligned") => Resampling::BilinearAligned,
            _ => Resampling::BicubicAntialiased,
        };
        let (mean, std) = SYMMETRIC;
        Ok(VitSpec {
            architecture: self.architecture.to_owned(),
            width,
            depth: args.integer("depth", 12)?,
            image_size,
            patch: PatchSpec { size: patch, bias: !pre_norm },
            prefix,
            positions: Positions::Table(PositionTable {
                prefix: if args.flag("no_embed_class", false) { 0 } else { prefix.count() },
                resampling,
                rounded: true,
            }),
            norm_pre: pre_norm,
            eps: args.number("eps", 1e-6) as f32,
            attention: AttentionSpec {
                heads: args.integer("num_heads", 12)?,
                qkv_bias: args.flag("qkv_bias", true),
                key_bias: true,
            },
            mlp,
            layer_scale: args.get("init_values").is_some(),
            pooling: PoolingSpec { pool, norm: final_norm && !norm_after_pool, fc_norm: final_norm && norm_after_pool },
            outputs: OutputSpec::default(),
            input: BackboneDefaults {
                mean,
                std,
                resize: ResizeMode::Crop,
                interpolation: Interpolation::Bicubic,
                crop_pct: 0.9,
            },
        })
    }

    /// The activation these weights were trained with. Weights of `OpenAI`, `MetaCLIP` and DFN want `QuickGELU`; timm
    /// says so in a note on them but runs the exact GELU unless the architecture's own `quickgelu` variant is asked for.
    fn activation(&self, args: &Args<'_>) -> Result<Activation, String> {
        let quick = args.entry["native_quick_gelu"].as_array().is_some_and(|tags| {
            self.args.get("act_layer").is_none() && tags.iter().any(|tag| tag.as_str() == self.tag)
        });
        if quick { Ok(Activation::QuickGelu) } else { activation(args.text("act_layer")) }
    }
}

/// An activation by its name in timm.
pub(super) fn activation(name: Option<&str>) -> Result<Activation, String> {
    match name {
        None | Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_tanh") => Ok(Activation::GeluTanh),
        Some("quick_gelu") => Ok(Activation::QuickGelu),
        Some(other) => Err(format!("act_layer {other:?} is not supported; supported: gelu, gelu_tanh, quick_gelu")),
    }
}

/// An architecture's line in a section of the table.
pub(super) fn entry(section: &str, architecture: &str) -> Result<&'static Value, String> {
    let Some(entry) = TABLE[section].get(architecture) else {
        return Err(format!(
            "architecture {architecture:?} is not one of the vision transformers of timm {} that are supported: \
             plain ViT, AugReg, DeiT, FlexiViT, CLIP, DINOv2, SigLIP and RADIO towers, NaFlexVit",
            TABLE["timm"].as_str().unwrap_or_default()
        ));
    };
    match entry["unsupported"].as_str() {
        Some(reason) => Err(format!("architecture {architecture:?} is not supported ({reason})")),
        None => Ok(entry),
    }
}

/// The arguments of a model, where every key is optional.
pub(super) struct Args<'a> {
    /// What the file sets.
    pub own: &'a Value,
    /// What the architecture sets.
    pub entry: &'static Value,
}

impl Args<'_> {
    /// The value of an argument; one that the file sets to null is absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.own.get(key).or_else(|| self.entry.get(key)).filter(|value| !value.is_null())
    }

    /// The values that hold `key`, for reading it in one of its types.
    fn holder(&self, key: &str) -> Config<'_> {
        Config(if self.own.get(key).is_some() { self.own } else { self.entry })
    }

    /// A whole number.
    pub fn integer(&self, key: &str, default: usize) -> Result<usize, String> {
        self.holder(key).integer(key, default)
    }

    /// A number.
    pub fn number(&self, key: &str, default: f64) -> f64 {
        self.holder(key).number(key, default)
    }

    /// True or false.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.holder(key).flag(key, default)
    }

    /// A word.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

/// The options of `model_args` whose effect is known here, or that only matter to training.
const KNOWN: &[&str] = &[
    "act_layer",
    "attn_drop_rate",
    "class_token",
    "depth",
    "drop_path_rate",
    "drop_rate",
    "dynamic_img_size",
    "embed_dim",
    "fc_norm",
    "final_norm",
    "fix_init",
    "global_pool",
    "img_size",
    "in_chans",
    "init_values",
    "mlp_ratio",
    "no_embed_class",
    "num_classes",
    "num_heads",
    "patch_drop_rate",
    "patch_size",
    "pos_drop_rate",
    "pre_norm",
    "pretrained",
    "proj_bias",
    "proj_drop_rate",
    "qkv_bias",
    "reg_tokens",
    "weight_init",
];

/// Options that change the arithmetic without changing a tensor's name or shape must be known or refused.
pub(super) fn refuse_unsupported(model_args: &Value, known: &[&str]) -> Result<(), String> {
    let Some(values) = model_args.as_object() else { return Ok(()) };
    if values.get("in_chans").and_then(Value::as_u64).is_some_and(|channels| channels != 3) {
        return Err("only three input channels are supported (model_args.in_chans)".into());
    }
    match values.iter().find(|(key, value)| !known.contains(&key.as_str()) && **value != Value::Bool(false)) {
        Some((key, value)) => Err(format!("model_args.{key} = {value} is not supported")),
        None => Ok(()),
    }
}

pub(super) fn input(pretrained: &Value) -> BackboneDefaults {
    let values = Config(pretrained);
    BackboneDefaults {
        // timm's own defaults for vision transformers.
        mean: values.triple("mean", SYMMETRIC.0),
        std: values.triple("std", SYMMETRIC.1),
        resize: match pretrained["crop_mode"].as_str() {
            Some("squash") => ResizeMode::Squash,
            Some("border") => ResizeMode::Letterbox,
            _ => ResizeMode::Crop,
        },
        interpolation: values.interpolation(),
        crop_pct: values.number("crop_pct", 0.9),
    }
}
