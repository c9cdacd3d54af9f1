//! The timm format of `BEiT` and `BEiT` v2.
//!
//! Reference: timm's `beit.py`. Positions are relative: every block adds what its table says of two tokens' places to the
//! scores of attention. `timm_beit.json` has the arguments of each architecture, as written from timm itself by
//! `tests/fixtures/make_timm_table.py`.

use super::family::{Description, Family, Header};
use super::mapping::WeightMapping;
use super::name::ParamName;
use super::positions::Positions;
use super::spec::{AttentionSpec, MlpSpec, NormSpec, OutputSpec, PatchSpec, Pool, PoolingSpec, PrefixSpec, VitSpec};
use super::timm_args::{Args, TimmModel, described, input, refuse_unsupported};
use super::timm_eva;
use crate::nn::Activation;
use serde_json::Value;
use std::sync::LazyLock;

/// timm's `Beit`.
pub struct TimmBeit;

/// What each architecture passes to timm's class. Unreadable only if the file in this folder is.
static TABLE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("timm_beit.json")).unwrap_or_default());

/// Whether an architecture is of this class.
pub(super) fn knows(architecture: &str) -> bool {
    TABLE["architectures"].get(architecture).is_some()
}

impl Family for TimmBeit {
    fn name(&self) -> &'static str {
        "timm BEiT"
    }

    fn recognises(&self, config: &Value) -> bool {
        config["architecture"].as_str().is_some_and(knows)
    }

    fn spec(&self, description: &Description, header: &Header) -> Result<VitSpec, String> {
        described(&description.config, header, spec)
    }

    fn mapping(&self, name: ParamName, header: &Header) -> WeightMapping {
        timm_eva::mapping(name, header, "")
    }

    fn ignores(&self, name: &str, _header: &Header) -> bool {
        // It follows from the grid, in older files.
        name.ends_with("relative_position_index")
    }
}

/// The architecture: the arguments of the file over those of the table over the defaults of timm's class.
pub(super) fn spec(model: &TimmModel<'_>) -> Result<VitSpec, String> {
    refuse_unsupported(model.args, KNOWN)?;
    let args = Args { own: model.args, entry: &TABLE["architectures"][model.architecture] };
    if args.flag("use_abs_pos_emb", true) || !args.flag("use_rel_pos_bias", false) {
        return Err("positions other than relative ones of each block are not supported".into());
    }
    let width = args.integer("embed_dim", 768)?;
    let hidden = (width as f64 * args.number("mlp_ratio", 4.0)) as usize;
    let pool = match args.text("global_pool").or(model.pool).unwrap_or("avg") {
        "avg" => Pool::Avg,
        "token" | "" => Pool::Cls,
        other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg")),
    };
    let fc_norm = args.flag("use_fc_norm", pool == Pool::Avg);
    Ok(VitSpec {
        architecture: model.architecture.to_owned(),
        width,
        depth: args.integer("depth", 12)?,
        image_size: model.side(&args)?,
        patch: PatchSpec { size: args.integer("patch_size", 16)?, bias: true, norm: false },
        prefix: PrefixSpec { class: true, ..PrefixSpec::default() },
        positions: Positions::Relative,
        norm_pre: false,
        norms: NormSpec::layer(1e-6),
        attention: AttentionSpec {
            qkv_bias: args.flag("qkv_bias", true),
            key_bias: false,
            ..AttentionSpec::of(args.integer("num_heads", 12)?)
        },
        mlp: MlpSpec::plain(hidden, Activation::Gelu),
        layer_scale: args.get("init_values").is_some(),
        pooling: PoolingSpec { norm: !fc_norm, fc_norm, ..PoolingSpec::of(pool) },
        outputs: OutputSpec::default(),
        input: input(&Value::Null),
    })
}

/// The options of this class whose effect is known here, or that only matter to training, beside those of all classes.
const KNOWN: &[&str] = &["head_init_scale", "use_abs_pos_emb", "use_fc_norm", "use_rel_pos_bias"];
