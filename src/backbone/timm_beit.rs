//! The timm format of `BEiT` and `BEiT` v2.
//!
//! Reference: timm's `beit.py`. Positions are relative: every block adds what its table says of two tokens' places to the
//! scores of attention. `timm_beit.json` has the arguments of each architecture, as written from timm itself by
//! `tests/fixtures/make_timm_table.py`.

use super::prelude::*;
use super::timm_args::{Table, TimmModel, base, described, parsed, refuse_unsupported};
use super::timm_eva;

static TABLE: Table = Table::new(|| parsed(include_str!("timm_beit.json")));

/// timm's `Beit`.
pub const FAMILY: Family = Family {
    name: "timm BEiT",
    recognises: |config| TABLE.recognises(config),
    spec: |description, header| described(&description.config, header, spec),
    usual_size: |_| None,
    mapping: |name, header| timm_eva::mapping(name, header, ""),
    // It follows from the grid, in older files.
    ignores: |name, _| name.ends_with("relative_position_index"),
};

/// The architecture: the arguments of the file over those of the table over the defaults of timm's class.
fn spec(model: &TimmModel<'_>) -> Result<VitSpec, String> {
    let args = TABLE.args(model)?;
    refuse_unsupported(model.args, KNOWN)?;
    if args.flag("use_abs_pos_emb", true) || !args.flag("use_rel_pos_bias", false) {
        return Err("positions other than relative ones of each block are not supported".into());
    }
    let pool = match args.text("global_pool").or(model.pool).unwrap_or("avg") {
        "avg" => Pool::Avg,
        "token" | "" => Pool::Cls,
        other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg")),
    };
    let fc_norm = args.flag("use_fc_norm", pool == Pool::Avg);
    let spec = base(model.architecture, &args, model.size(&args)?, pool)?;
    Ok(VitSpec {
        norms: NormSpec::layer(1e-6),
        attention: AttentionSpec { key_bias: false, ..spec.attention },
        pooling: PoolingSpec { norm: !fc_norm, fc_norm, ..spec.pooling },
        ..spec
    })
}

/// The options of this class whose effect is known here, or that only matter to training, beside those of all classes.
const KNOWN: &[&str] = &["head_init_scale", "use_abs_pos_emb", "use_fc_norm", "use_rel_pos_bias"];
