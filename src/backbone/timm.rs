//! The timm format: `ViT`, `DeiT`, `AugReg`, CLIP, `DINOv2`, `SigLIP`, `AIMv2` and BEiT-3 towers.
//!
//! Reference: timm's `vision_transformer.py` and `deit.py`. Our canonical parameter names are timm's. A file names its
//! architecture and stores only what differs from it, so `timm_architectures.json` has the arguments of each, as
//! written from timm itself by `tests/fixtures/make_timm_table.py`.

use super::prelude::*;
use super::timm_args::{Args, TimmModel, base, described, parsed, refuse_unsupported};
use super::timm_eva;
use std::sync::LazyLock;

/// What each architecture passes to timm's class. Unreadable only if the file in this folder is.
static TABLE: LazyLock<Value> = LazyLock::new(|| parsed(include_str!("timm_architectures.json")));

/// timm's vision transformers.
pub const FAMILY: Family = Family {
    name: "timm ViT",
    recognises: |config| config.get("architecture").is_some_and(Value::is_string),
    spec: |description, header| described(&description.config, header, spec),
    usual_size: |_| None,
    mapping: |name, header| of_dinov2(name, header).unwrap_or_else(|| timm_eva::mapping(name, header, "")),
    ignores: |name, _| name == DINOV2_MASK,
};

/// What DINOv2 puts in the place of hidden patches, in pretraining only.
const DINOV2_MASK: &str = "mask_token";

/// Where a parameter lies in the files that DINOv2 itself publishes, where those differ from timm's: a packed `SwiGLU` has
/// other names, and beside registers the class token and its position are apart. As timm's `_convert_dinov2`.
fn of_dinov2(name: ParamName, header: &Header) -> Option<WeightMapping> {
    const REGISTERS: &str = "register_tokens";
    let own = name.to_string();
    let packed = own.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.");
    if packed != own && header.contains_key(&packed) {
        return Some(WeightMapping::One(packed));
    }
    let rows = |table: &str| header.get(table).and_then(|shape| shape.get(1)).copied().unwrap_or_default();
    match name.layer {
        _ if !header.contains_key(REGISTERS) => None,
        Layer::RegToken => Some(WeightMapping::One(REGISTERS.into())),
        Layer::PosEmbed => Some(WeightMapping::WithoutFirst(own)),
        Layer::ClsToken => {
            let table = "pos_embed";
            Some(WeightMapping::Positioned { names: [own, table.into()], rows: rows(table) })
        }
        _ => None,
    }
}

/// The architecture: the arguments of the file over those of the table over the defaults of timm's class.
pub(super) fn spec(model: &TimmModel<'_>) -> Result<VitSpec, String> {
    let entry = entry("architectures", model.architecture)?;
    refuse_unsupported(model.args, KNOWN)?;
    let args = Args { own: model.args, entry };
    let width = args.integer("embed_dim", 768)?;
    let image_size = model.size(&args)?;
    let mlp = (width as f64 * args.number("mlp_ratio", 4.0)) as usize;
    let mlp = if args.flag("gate_apart", false) {
        MlpSpec::gated(mlp)
    } else if model.gated || args.flag("swiglu", false) {
        MlpSpec::gated(mlp / 2)
    } else {
        MlpSpec::plain(mlp, activation_of(model, &args)?)
    };
    let prefix = PrefixSpec {
        class: args.flag("class_token", true),
        distillation: args.flag("distilled", false),
        registers: args.integer("reg_tokens", 0)?,
    };
    let pool = match args.text("global_pool").or(model.pool).unwrap_or("token") {
        "token" | "" if prefix.distillation => Pool::Distilled,
        // Saved without pooling, for its tokens: `model.pool` chooses one, else what fits.
        "" if !prefix.class => Pool::Avg,
        "token" | "" => Pool::Cls,
        "avg" => Pool::Avg,
        "map" => Pool::Attention,
        other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg, map")),
    };
    if pool == Pool::Attention && mlp.is_gated() {
        return Err("global_pool \"map\" behind a gated MLP is not supported".into());
    }
    let spec = base(model.architecture, &args, image_size, pool)?;
    let proj_bias = args.flag("proj_bias", true);
    let attention = AttentionSpec {
        norm: args.flag("scale_attn_norm", false),
        qk_norm: args.flag("qk_norm", false),
        proj_bias,
        ..spec.attention
    };
    let reads_prefix = args.flag("pool_include_prefix", false);
    if reads_prefix && pool != Pool::Attention {
        return Err("pool_include_prefix is supported with global_pool \"map\" alone".into());
    }
    let norm_after_pool = args.flag("fc_norm", args.text("global_pool").or(model.pool) == Some("avg"));
    let (pre_norm, final_norm) = (args.flag("pre_norm", false), args.flag("final_norm", true));
    let resampling = match args.text("positions") {
        Some("bilinear") => Resampling::Bilinear,
        Some("bilinear_aligned") => Resampling::BilinearAligned,
        _ => Resampling::BicubicAntialiased,
    };
    Ok(VitSpec {
        patch: PatchSpec { bias: !pre_norm, norm: args.flag("embed_norm", false), ..spec.patch },
        prefix,
        positions: Positions::Table(PositionTable {
            prefix: if args.flag("no_embed_class", false) { 0 } else { prefix.count() },
            resampling,
            rounded: true,
            of_square: false,
        }),
        norm_pre: pre_norm,
        attention,
        mlp: MlpSpec { norm: args.flag("scale_mlp_norm", false), bias: proj_bias, ..mlp },
        pooling: PoolingSpec {
            query: reads_prefix.then_some(PoolQuery { reads_prefix, ..PoolQuery::like(attention, mlp) }),
            norm: final_norm && !norm_after_pool,
            fc_norm: final_norm && norm_after_pool,
            ..spec.pooling
        },
        ..spec
    })
}

/// Whether an architecture keeps the two halves of its `SwiGLU` in tensors of their own.
pub fn keeps_gate_apart(architecture: &str) -> bool {
    TABLE["architectures"][architecture]["gate_apart"] == Value::Bool(true)
}

/// The activation these weights were trained with. Weights of `OpenAI`, `MetaCLIP` and DFN want `QuickGELU`; timm
/// says so in a note on them but runs the exact GELU unless the architecture's own `quickgelu` variant is asked for.
fn activation_of(model: &TimmModel<'_>, args: &Args<'_>) -> Result<Activation, String> {
    let quick = args.entry["native_quick_gelu"]
        .as_array()
        .is_some_and(|tags| model.args.get("act_layer").is_none() && tags.iter().any(|tag| tag.as_str() == model.tag));
    if quick { Ok(Activation::QuickGelu) } else { activation(args.text("act_layer")) }
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
             plain ViT, AugReg, DeiT, FlexiViT, CLIP, DINOv2, SigLIP, AIMv2, BEiT-3 and RADIO towers, NaFlexVit",
            TABLE["timm"].as_str().unwrap_or_default()
        ));
    };
    match entry["unsupported"].as_str() {
        Some(reason) => Err(format!("architecture {architecture:?} is not supported ({reason})")),
        None => Ok(entry),
    }
}

/// The options of this class whose effect is known here, or that only matter to training, beside those of all classes.
const KNOWN: &[&str] = &[
    "act_layer", "class_token", "dynamic_img_size", "fc_norm", "final_norm", "fix_init", "no_embed_class",
    "patch_drop_rate", "pool_include_prefix", "pre_norm", "proj_bias", "qk_norm", "reg_tokens", "scale_attn_norm",
    "scale_mlp_norm", "weight_init",
];
