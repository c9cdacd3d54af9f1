//! The timm format of vision transformers with relative positions that a small network makes.
//!
//! Reference: timm's `vision_transformer_relpos.py`. `timm_relpos.json` has the arguments of each architecture, as written
//! from timm itself by `tests/fixtures/make_timm_table.py`. timm drops an eighth of the network's hidden values in training;
//! here none are. Where all blocks share a network, each gets a copy, which training may move apart.

use super::family::{Description, Family, Header};
use super::mapping::WeightMapping;
use super::name::{Layer, ParamName};
use super::positions::Positions;
use super::spec::{AttentionSpec, MlpSpec, OutputSpec, PatchSpec, Pool, PoolingSpec, PrefixSpec, VitSpec};
use super::timm_args::{Args, TimmModel, described, input, norms, refuse_unsupported};
use crate::nn::Activation;
use serde_json::Value;
use std::sync::LazyLock;

/// timm's `VisionTransformerRelPos`.
pub struct TimmRelPos;

/// What each architecture passes to timm's class. Unreadable only if the file in this folder is.
static TABLE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("timm_relpos.json")).unwrap_or_default());

impl Family for TimmRelPos {
    fn name(&self) -> &'static str {
        "timm ViT with relative positions"
    }

    fn recognises(&self, config: &Value) -> bool {
        config["architecture"].as_str().is_some_and(|name| TABLE["architectures"].get(name).is_some())
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        described(&description.config, header, spec)
    }

    fn mapping(&self, name: ParamName, header: &Header) -> WeightMapping {
        let of_all = matches!(name.layer, Layer::RelFc1 | Layer::RelFc2) && header.contains_key(SHARED);
        let own = String::from(name);
        match own.split_once("attn.rel_pos.") {
            Some((_, rest)) if of_all => WeightMapping::One(format!("shared_rel_pos.{rest}")),
            _ => WeightMapping::One(own),
        }
    }

    fn ignores(&self, name: &str, _header: &Header) -> bool {
        // They follow from the grid, in older files.
        name.ends_with("relative_position_index") || name.ends_with("rel_coords_log")
    }
}

/// A tensor that is there where all blocks share a network.
const SHARED: &str = "shared_rel_pos.mlp.fc1.weight";

/// The architecture: the arguments of the file over those of the table over the defaults of timm's class.
fn spec(model: &TimmModel<'_>) -> Result<VitSpec, String> {
    refuse_unsupported(model.args, KNOWN)?;
    let args = Args { own: model.args, entry: &TABLE["architectures"][model.architecture] };
    match args.text("rel_pos_type") {
        None | Some("mlp") => {}
        Some(other) => return Err(format!("rel_pos_type {other:?} is not supported; supported: mlp")),
    }
    let width = args.integer("embed_dim", 768)?;
    let hidden = (width as f64 * args.number("mlp_ratio", 4.0)) as usize;
    let prefix = PrefixSpec { class: args.flag("class_token", false), ..PrefixSpec::default() };
    let pool = match args.text("global_pool").or(model.pool).unwrap_or("avg") {
        "token" | "" if prefix.class => Pool::Cls,
        "avg" | "" => Pool::Avg,
        other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg")),
    };
    let (norms, fc_norm) = (norms(&args), args.flag("fc_norm", false));
    // Norms at the end of branches start from that value instead.
    let scaled = args.own.get("init_values").or(args.entry.get("init_values")).is_none_or(|value| !value.is_null());
    Ok(VitSpec {
        architecture: model.architecture.to_owned(),
        width,
        depth: args.integer("depth", 12)?,
        image_size: model.side(&args)?,
        patch: PatchSpec { size: args.integer("patch_size", 16)?, bias: true, norm: false },
        prefix,
        positions: Positions::RelativeMlp { hidden: args.integer("rel_pos_dim", 128)? },
        norm_pre: false,
        norms,
        attention: AttentionSpec {
            qkv_bias: args.flag("qkv_bias", true),
            ..AttentionSpec::of(args.integer("num_heads", 12)?)
        },
        mlp: MlpSpec::plain(hidden, Activation::Gelu),
        layer_scale: scaled && !norms.behind,
        pooling: PoolingSpec { norm: !fc_norm, fc_norm, ..PoolingSpec::of(pool) },
        outputs: OutputSpec::default(),
        input: input(&Value::Null),
    })
}

/// The options of this class whose effect is known here, or that only matter to training, beside those of all classes.
const KNOWN: &[&str] =
    &["class_token", "fc_norm", "fix_init", "rel_pos_dim", "rel_pos_type", "shared_rel_pos", "weight_init"];
