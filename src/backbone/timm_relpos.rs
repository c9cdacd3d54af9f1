//! The timm format of vision transformers with relative positions that a small network makes.
//!
//! Reference: timm's `vision_transformer_relpos.py`. `timm_relpos.json` has the arguments of each architecture, as written
//! from timm itself by `tests/fixtures/make_timm_table.py`. timm drops an eighth of the network's hidden values in training;
//! here none are. Where all blocks share a network, each gets a copy, which training may move apart.

use super::prelude::*;
use super::timm_args::{Table, TimmModel, base, described, parsed, refuse_unsupported};

static TABLE: Table = Table::new(|| parsed(include_str!("timm_relpos.json")));

/// timm's `VisionTransformerRelPos`.
pub const FAMILY: Family = Family {
    name: "timm ViT with relative positions",
    recognises: |config| TABLE.recognises(config),
    spec: |description, header| described(&description.config, header, spec),
    usual_size: |_| None,
    mapping,
    // What follows from the grid, in older files.
    ignores: |name, _| name.ends_with("relative_position_index") || name.ends_with("rel_coords_log"),
};

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let of_all = matches!(name.layer, Layer::RelFc1 | Layer::RelFc2) && header.contains_key(SHARED);
    let own = String::from(name);
    match own.split_once("attn.rel_pos.") {
        Some((_, rest)) if of_all => WeightMapping::One(format!("shared_rel_pos.{rest}")),
        _ => WeightMapping::One(own),
    }
}

/// A tensor that is there where all blocks share a network.
const SHARED: &str = "shared_rel_pos.mlp.fc1.weight";

/// The architecture: the arguments of the file over those of the table over the defaults of timm's class.
fn spec(model: &TimmModel<'_>) -> Result<VitSpec, String> {
    let args = TABLE.args(model)?;
    refuse_unsupported(model.args, KNOWN)?;
    match args.text("rel_pos_type") {
        None | Some("mlp") => {}
        Some(other) => return Err(format!("rel_pos_type {other:?} is not supported; supported: mlp")),
    }
    let prefix = PrefixSpec { class: args.flag("class_token", false), ..PrefixSpec::default() };
    let pool = match args.text("global_pool").or(model.pool).unwrap_or("avg") {
        "token" | "" if prefix.class => Pool::Cls,
        "avg" | "" => Pool::Avg,
        other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg")),
    };
    let fc_norm = args.flag("fc_norm", false);
    let scaled = args.own.get("init_values").or(args.entry.get("init_values")).is_none_or(|value| !value.is_null());
    let spec = base(model.architecture, &args, model.size(&args)?, pool)?;
    Ok(VitSpec {
        prefix,
        positions: Positions::RelativeMlp { hidden: args.integer("rel_pos_dim", 128)? },
        layer_scale: scaled && !spec.norms.behind,
        pooling: PoolingSpec { norm: !fc_norm, fc_norm, ..spec.pooling },
        ..spec
    })
}

/// The options of this class whose effect is known here, or that only matter to training, beside those of all classes.
const KNOWN: &[&str] =
    &["class_token", "fc_norm", "fix_init", "rel_pos_dim", "rel_pos_type", "shared_rel_pos", "weight_init"];
