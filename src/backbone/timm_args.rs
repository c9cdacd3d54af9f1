//! What files of timm say about their models, whichever of timm's classes these are.

use super::prelude::*;
use std::sync::LazyLock;

/// The architecture that a file describes.
pub(super) fn described(
    config: &Value,
    header: &Header,
    spec: impl Fn(&TimmModel<'_>) -> Result<VitSpec, String>,
) -> Result<VitSpec, String> {
    // Older files have the fields of pretrained_cfg at the top level.
    let pretrained = config.get("pretrained_cfg").unwrap_or(config);
    let model = TimmModel {
        architecture: config["architecture"].as_str().unwrap_or_default(),
        args: &config["model_args"],
        pool: config["global_pool"].as_str().or_else(|| pretrained["global_pool"].as_str()),
        image_size: pretrained["input_size"][1].as_u64().and_then(|side| usize::try_from(side).ok()),
        // The tag outlives fine-tuning in timm, which runs the exact GELU then: published heads are projections.
        tag: pretrained["tag"].as_str().filter(|_| is_projection(config["num_classes"].as_u64())),
        gated: is_gated(header),
    };
    let outputs = OutputSpec { classes: outputs(header, "head.weight"), ..OutputSpec::default() };
    Ok(VitSpec { outputs, input: input(pretrained), ..spec(&model)? })
}

/// Whether a head of so many outputs is a projection to an embedding, or absent, rather than a classifier.
fn is_projection(outputs: Option<u64>) -> bool {
    outputs.is_none_or(|n| n == 0 || (n >= 512 && n % 128 == 0))
}

/// What the architectures of one of timm's classes pass to it, as read from a file in this folder.
pub(super) struct Table(LazyLock<Value>);

impl Table {
    /// As [`parsed`] reads it.
    pub const fn new(read: fn() -> Value) -> Self {
        Self(LazyLock::new(read))
    }

    /// Whether an architecture is of this class.
    pub fn knows(&self, architecture: &str) -> bool {
        self.0["architectures"].get(architecture).is_some()
    }

    /// Whether the architecture of a config is of this class.
    pub fn recognises(&self, config: &Value) -> bool {
        config["architecture"].as_str().is_some_and(|architecture| self.knows(architecture))
    }

    /// The arguments of a model: those of the file over those of the table.
    pub fn args<'a>(&'static self, model: &TimmModel<'a>) -> Result<Args<'a>, String> {
        let entry = &self.0["architectures"][model.architecture];
        match entry["unsupported"].as_str() {
            Some(reason) => Err(format!("architecture {:?} is not supported ({reason})", model.architecture)),
            None => Ok(Args { own: model.args, entry }),
        }
    }
}

/// The JSON of a file in this folder: nothing only where that is damaged.
pub(super) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// What timm's classes have in common, with a class token, an exact GELU and a layer scale where the arguments ask for one.
pub(super) fn base(architecture: &str, args: &Args<'_>, image_size: Size, pool: Pool) -> Result<VitSpec, String> {
    let width = args.integer("embed_dim", 768)?;
    let norms = NormSpec {
        eps: args.number("eps", 1e-6) as f32,
        rms: args.flag("rms", false),
        behind: args.flag("use_post_norm", false),
    };
    Ok(VitSpec {
        architecture: architecture.to_owned(),
        width,
        depth: args.integer("depth", 12)?,
        image_size,
        patch: PatchSpec { size: args.integer("patch_size", 16)?, bias: true, norm: false },
        prefix: PrefixSpec { class: true, ..PrefixSpec::default() },
        positions: Positions::Relative(Resampling::Geometric),
        norm_pre: false,
        norms,
        attention: AttentionSpec {
            qkv_bias: args.flag("qkv_bias", true),
            ..AttentionSpec::of(args.integer("num_heads", 12)?)
        },
        mlp: MlpSpec::plain((width as f64 * args.number("mlp_ratio", 4.0)) as usize, Activation::Gelu),
        // Norms at the end of branches start from that value instead.
        layer_scale: args.get("init_values").is_some() && !norms.behind,
        pooling: PoolingSpec::of(pool),
        outputs: OutputSpec::default(),
        input: input(&Value::Null),
    })
}

/// What a file says about its model.
pub(super) struct TimmModel<'a> {
    /// The name of the architecture.
    pub architecture: &'a str,
    /// Arguments that differ from the architecture's.
    pub args: &'a Value,
    /// The pooling, if neither the arguments nor the architecture set it.
    pub pool: Option<&'a str>,
    /// Height of the images of these weights, if the arguments do not set it.
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

impl TimmModel<'_> {
    /// Size of its images: of an architecture whose own are not square, a square of their height.
    pub fn size(&self, args: &Args<'_>) -> Result<Size, String> {
        let size = args.holder("img_size").size("img_size", 224)?;
        let stated = self.args.get("img_size").is_some();
        Ok(if stated { size } else { self.image_size.unwrap_or(size.height).into() })
    }
}

/// The arguments of a model, where every key is optional.
pub(super) struct Args<'a> {
    /// Those of the file.
    pub own: &'a Value,
    /// Those of the architecture.
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

    /// A whole number, or a pair of equal ones.
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

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

/// The options that all of timm's classes have.
const COMMON: &[&str] = &[
    "attn_drop_rate", "depth", "drop_path_rate", "drop_rate", "embed_dim", "global_pool", "img_size", "in_chans",
    "init_values", "mlp_ratio", "num_classes", "num_heads", "patch_size", "pos_drop_rate", "pretrained",
    "proj_drop_rate", "qkv_bias",
];

/// Options that are not supported but false by default in all of timm's classes that have them: false changes nothing there.
/// Of others it may, as of `NaFlexVit`'s `patchify_channels_last`.
const OFF: &[&str] = &[
    "attn_gated", "attn_only_layer_scale", "dynamic_img_pad", "enable_patch_interpolator", "pool_include_prefix",
    "pos_embed_use_grid_sample", "qk_norm", "rope_rotate_half", "scale_attn_inner", "scale_attn_inner_norm",
    "scale_attn_norm", "scale_mlp", "scale_mlp_norm", "swiglu_mlp", "use_key_only_attn_mask", "use_post_norm",
    "use_shared_rel_pos_bias",
];

/// Options that change the arithmetic without changing a tensor's name or shape must be known or refused: `known` are those
/// of one class.
pub(super) fn refuse_unsupported(model_args: &Value, known: &[&str]) -> Result<(), String> {
    let Some(values) = model_args.as_object() else { return Ok(()) };
    if values.get("in_chans").and_then(Value::as_u64).is_some_and(|channels| channels != 3) {
        return Err("only three input channels are supported (model_args.in_chans)".into());
    }
    let known = [COMMON, known].concat();
    let refused =
        |key: &str, value: &Value| !known.contains(&key) && (*value != Value::Bool(false) || !OFF.contains(&key));
    let found = values.iter().find(|(key, value)| refused(key, value));
    found.map_or(Ok(()), |(key, value)| Err(format!("model_args.{key} = {value} is not supported")))
}

/// How the inputs of the weights were prepared; timm's defaults for what `pretrained` does not say.
pub(super) fn input(pretrained: &Value) -> BackboneDefaults {
    let values = Config(pretrained);
    BackboneDefaults {
        mean: values.triple("mean", IMAGENET.0),
        std: values.triple("std", IMAGENET.1),
        resize: match pretrained["crop_mode"].as_str() {
            Some("squash") => ResizeMode::Squash,
            Some("border") => ResizeMode::Letterbox,
            _ => ResizeMode::Crop,
        },
        interpolation: values.interpolation(),
        crop_pct: values.number("crop_pct", 0.875),
    }
}

#[cfg(test)]
mod tests {
    use super::is_projection;

    #[test]
    fn a_head_of_classes_is_no_projection() {
        let projections = [None, Some(0), Some(512), Some(768), Some(1024)];
        assert!(projections.into_iter().all(is_projection));
        assert!([3, 10, 1000].into_iter().all(|classes| !is_projection(Some(classes))));
    }
}
