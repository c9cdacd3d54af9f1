//! The timm format of what timm builds as its `Eva` class: EVA, EVA02, Perception Encoder, rope-ViT, `DINOv3`.
//!
//! Reference: timm's `eva.py`. A file names its architecture and stores only what differs from it, so `timm_eva.json` has
//! the arguments of each, as written from timm itself by `tests/fixtures/make_timm_table.py`.

use super::prelude::*;
use super::timm_args::{Args, Table, TimmModel, base, described, parsed, refuse_unsupported};

pub(super) static TABLE: Table = Table::new(|| parsed(include_str!("timm_eva.json")));

/// timm's `Eva`.
pub const FAMILY: Family = Family {
    name: "timm Eva (EVA02, PE, rope-ViT, DINOv3)",
    recognises: |config| TABLE.recognises(config),
    spec: |description, header| described(&description.config, header, spec),
    usual_size: |_| None,
    mapping: |name, header| mapping(name, header, ""),
    // What follows from the grid, in older files.
    ignores: |name, _| name.starts_with("rope."),
};

/// Where a parameter lies behind `prefix`, by the names that the file has.
pub(super) fn mapping(name: ParamName, header: &Header, prefix: &str) -> WeightMapping {
    if name.layer == Layer::RopeFreqs {
        let (name, block) = (format!("{prefix}rope.freqs"), name.block.unwrap_or(0));
        // Of the blocks, not of the tensor itself, whose shape is held against it.
        let is_block = |block: &usize| header.contains_key(&format!("{prefix}blocks.{block}.norm1.weight"));
        let count = (0..header.len()).take_while(is_block).count();
        return WeightMapping::OfBlock { name, block, count };
    }
    let Some(block) = name.block else { return WeightMapping::One(format!("{prefix}{name}")) };
    let part = name.part.text();
    let at = |theirs: &str| format!("{prefix}blocks.{block}.{theirs}");
    let stored = |theirs: &str| header.contains_key(&at(theirs));
    let one = |theirs: &str| WeightMapping::One(at(theirs));
    let projections = ["q_proj", "k_proj", "v_proj"].map(|third| at(&format!("attn.{third}.{part}")));
    match (name.layer, name.part) {
        (Layer::Qkv, Part::Bias) if stored("attn.q_bias") => {
            WeightMapping::NoKey([at("attn.q_bias"), at("attn.v_bias")])
        }
        (Layer::Qkv, Part::Bias) if stored("attn.q_proj.bias") && !stored("attn.k_proj.bias") => {
            let [query, _, value] = projections;
            WeightMapping::NoKey([query, value])
        }
        (Layer::Qkv, _) if grouped(header, &at("attn.")) > 1 => WeightMapping::Grouped {
            names: projections,
            heads: grouped(header, &at("attn.")),
            head_dim: outputs(header, &at("attn.q_norm.weight")),
        },
        (Layer::Qkv, _) if stored("attn.q_proj.weight") => WeightMapping::Stack(projections.into()),
        (Layer::Scale1, _) if stored("gamma_1") => one("gamma_1"),
        (Layer::Scale2, _) if stored("gamma_2") => one("gamma_2"),
        (Layer::Fc1, _) if stored("mlp.fc1_g.weight") => {
            WeightMapping::Stack(["fc1_g", "fc1_x"].map(|half| at(&format!("mlp.{half}.{part}"))).into())
        }
        _ => WeightMapping::One(format!("{prefix}{name}")),
    }
}

/// How many heads share their keys and values, by the tensors below `attention`, where heads have norms that say their width.
fn grouped(header: &Header, attention: &str) -> usize {
    let rows = |name: &str| outputs(header, &format!("{attention}{name}.weight"));
    let (queries, keys, head_dim) = (rows("q_proj"), rows("k_proj"), rows("q_norm"));
    let divides = keys > 0 && head_dim > 0 && queries.is_multiple_of(keys) && keys.is_multiple_of(head_dim);
    if divides { queries / keys } else { 1 }
}

/// The architecture: the arguments of the file over those of the table over the defaults of timm's class.
pub(super) fn spec(model: &TimmModel<'_>) -> Result<VitSpec, String> {
    let args = TABLE.args(model)?;
    refuse_unsupported(model.args, KNOWN)?;
    let width = args.integer("embed_dim", 768)?;
    let prefix = PrefixSpec {
        class: args.flag("class_token", true),
        distillation: false,
        registers: args.integer("num_reg_tokens", 0)?,
    };
    let hidden = |key: &str, ratio: f64| (width as f64 * args.number(key, ratio)) as usize;
    let gated = args.flag("swiglu_mlp", false);
    let mlp = if gated {
        MlpSpec::gated(hidden("mlp_ratio", 4.0).next_multiple_of(args.integer("swiglu_align_to", 0)?.max(1)))
    } else {
        MlpSpec::plain(hidden("mlp_ratio", 4.0), Activation::Gelu)
    };
    let pooling = args.text("global_pool").or(model.pool).unwrap_or("avg");
    let pool = match pooling {
        // Saved without pooling, for its tokens: `model.pool` chooses one, else what fits.
        "token" | "" if prefix.class => Pool::Cls,
        "avg" | "" => Pool::Avg,
        "map" => Pool::Attention,
        other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg, map")),
    };
    let spec = base(model.architecture, &args, model.size(&args)?, pool)?;
    let attention = AttentionSpec {
        // timm's other kind of attention has no bias of the keys.
        key_bias: args.text("attn_type") == Some("rope"),
        norm: args.flag("scale_attn_inner", false),
        qk_norm: args.flag("qk_norm", false),
        ..spec.attention
    };
    let fc_norm = args.flag("use_fc_norm", pooling == "avg");
    let norm_pre = args.flag("use_pre_transformer_norm", false);
    let ratio = args.number("mlp_ratio", 4.0);
    let query = (pool == Pool::Attention).then(|| {
        Ok::<_, String>(PoolQuery {
            heads: args.integer("attn_pool_num_heads", attention.heads)?,
            hidden: hidden("attn_pool_mlp_ratio", ratio),
            reads_prefix: true,
        })
    });
    Ok(VitSpec {
        patch: PatchSpec { bias: !norm_pre, ..spec.patch },
        prefix,
        positions: positions(&args, prefix)?,
        norm_pre,
        attention,
        mlp: MlpSpec {
            norm: args.flag("scale_mlp", false),
            unscaled: args.flag("attn_only_layer_scale", false),
            ..mlp
        },
        pooling: PoolingSpec {
            norm: args.flag("use_post_transformer_norm", !fc_norm),
            fc_norm,
            query: query.transpose()?,
            ..spec.pooling
        },
        ..spec
    })
}

/// How tokens know where they lie.
fn positions(args: &Args<'_>, prefix: PrefixSpec) -> Result<Positions, String> {
    let table = args.flag("use_abs_pos_emb", true).then(|| PositionTable {
        prefix: if args.flag("no_embed_class", false) { 0 } else { prefix.count() },
        resampling: Resampling::BicubicAntialiased,
        rounded: true,
        of_square: false,
    });
    let rotary = args.flag("use_rot_pos_emb", false).then(|| rotary(args)).transpose()?;
    match (table, rotary) {
        (Some(table), None) => Ok(Positions::Table(table)),
        (None, Some(rotary)) => Ok(Positions::Rotary(rotary)),
        (Some(table), Some(rotary)) => Ok(Positions::TableAndRotary(table, rotary)),
        (None, None) => Err("a model without positions is not supported".into()),
    }
}

fn rotary(args: &Args<'_>) -> Result<AxialRotary, String> {
    let first = args.number("rope_grid_offset", 0.0);
    let indexing = args.text("rope_grid_indexing").unwrap_or("ij");
    let coordinates = match args.text("rope_type").unwrap_or("cat") {
        "dinov3" if first == 0.0 && indexing == "ij" => Coordinates::Centres,
        "mixed" => Coordinates::Numbers { first: 0.0, stretched_to: None, x_first: indexing == "xy" },
        "cat" => Coordinates::Numbers {
            first,
            stretched_to: args.get("ref_feat_shape").map(|_| args.integer("ref_feat_shape", 0)).transpose()?,
            x_first: indexing == "xy",
        },
        other => {
            return Err(format!(
                "rope_type {other:?} with rope_grid_offset {first} and rope_grid_indexing {indexing:?} is not supported"
            ));
        }
    };
    let mixed = args.text("rope_type") == Some("mixed");
    let learnt = if mixed { LearntAngles::Frequencies } else { LearntAngles::Nothing };
    let pairs = if args.flag("rope_rotate_half", false) { Pairs::Halves } else { Pairs::Neighbours };
    Ok(AxialRotary { temperature: args.number("rope_temperature", 1e4), coordinates, pairs, learnt })
}

/// The options of this class whose effect is known here, or that only matter to training, beside those of all classes.
const KNOWN: &[&str] = &[
    "attn_only_layer_scale", "attn_pool_mlp_ratio", "attn_pool_num_heads", "attn_type", "class_token",
    "dynamic_img_size", "head_init_scale", "no_embed_class", "num_kv_heads", "num_reg_tokens", "patch_drop_rate",
    "qk_norm", "qkv_fused", "ref_feat_shape", "rope_grid_indexing", "rope_grid_offset", "rope_jitter_coords",
    "rope_rescale_coords", "rope_rotate_half", "rope_shift_coords", "rope_temperature", "rope_type",
    "scale_attn_inner", "scale_mlp", "swiglu_align_to", "swiglu_mlp", "use_abs_pos_emb", "use_fc_norm",
    "use_post_norm", "use_post_transformer_norm", "use_pre_transformer_norm", "use_rot_pos_emb",
];
