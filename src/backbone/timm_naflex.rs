//! The timm format of `NaFlexVit`, which takes images of any shape, on one grid of patches; and of RADIO, which timm
//! builds as one.
//!
//! Reference: timm's `naflexvit.py`. The patch embedding is a product with flattened patches, which is a convolution. The
//! table of positions has a grid of its own, resampled to that of the images in each forward pass; `timm_architectures.json`
//! has the configuration of each architecture, and a file what differs from it.

use super::prelude::*;
use super::timm_args::{Args, base, input, refuse_unsupported};
use super::{hf, timm};

/// timm's `NaFlexVit`.
pub const FAMILY: Family = Family {
    name: "timm NaFlexVit",
    recognises: |config| config["architecture"].as_str().is_some_and(|name| name.starts_with("naflexvit_")),
    spec,
    usual_size,
    mapping,
    ignores: |_, _| false,
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let config = &description.config;
    let architecture = config["architecture"].as_str().unwrap_or_default();
    let args = Args { own: &config["model_args"], entry: timm::entry("naflexvit", architecture)? };
    refuse_unsupported(args.own, KNOWN)?;
    let patch = args.integer("patch_size", 16)?;
    let pool = match args.text("global_pool").unwrap_or("map") {
        "token" => Pool::Cls,
        "avg" => Pool::Avg,
        "map" => Pool::Attention,
        other => return Err(format!("global_pool {other:?} is not supported; supported: token, avg, map")),
    };
    let (pre_norm, final_norm) = (args.flag("pre_norm", false), args.flag("final_norm", true));
    let fc_norm = args.flag("fc_norm", pool == Pool::Avg);
    let side = args.integer("pos_embed_grid_size", 16)?.checked_mul(patch);
    let side = side.ok_or("pos_embed_grid_size and patch_size are too large")?;
    let spec = base(architecture, &args, side.into(), pool)?;
    Ok(VitSpec {
        patch: PatchSpec { bias: !pre_norm, ..spec.patch },
        prefix: PrefixSpec {
            class: args.flag("class_token", false),
            distillation: false,
            registers: args.integer("reg_tokens", 0)?,
        },
        positions: Positions::Table(PositionTable {
            resampling: resampling(&args)?,
            of_square: args.flag("pos_embed_ar_preserving", false),
            ..hf::positions(0)
        }),
        norm_pre: pre_norm,
        norms: NormSpec::layer(1e-6),
        mlp: MlpSpec::plain(spec.mlp.hidden, timm::activation(args.text("act_layer"))?),
        layer_scale: args.get("init_values").is_some(),
        pooling: PoolingSpec { norm: final_norm && !fc_norm, fc_norm: final_norm && fc_norm, ..spec.pooling },
        outputs: OutputSpec { classes: outputs(header, "head.weight"), ..OutputSpec::default() },
        input: input(config.get("pretrained_cfg").unwrap_or(config)),
        ..spec
    })
}

/// The size of the images these weights are for: the grid of the positions is another.
fn usual_size(Description { config, .. }: &Description) -> Option<Size> {
    let trained = config["pretrained_cfg"]["input_size"][1].as_u64().and_then(|side| usize::try_from(side).ok());
    Config(&config["model_args"]).size("img_size", trained.unwrap_or(0)).ok()
}

/// Where a parameter lies.
fn mapping(name: ParamName, _: &Header) -> WeightMapping {
    match (name.layer, name.part) {
        (Layer::PosEmbed, _) => WeightMapping::Grid("embeds.pos_embed".into()),
        (Layer::PatchEmbed, Part::Weight) => WeightMapping::Patches("embeds.proj.weight".into()),
        (Layer::PatchEmbed, _) => WeightMapping::One("embeds.proj.bias".into()),
        (Layer::ClsToken | Layer::RegToken, _) => WeightMapping::One(format!("embeds.{name}")),
        _ => WeightMapping::One(name.into()),
    }
}

fn resampling(args: &Args<'_>) -> Result<Resampling, String> {
    let mode = args.text("pos_embed_interp_mode").unwrap_or("bicubic");
    let (antialias, aligned) = (args.flag("pos_embed_antialias", true), args.flag("pos_embed_align_corners", false));
    match (mode, antialias, aligned) {
        ("bicubic", true, false) => Ok(Resampling::BicubicAntialiased),
        ("bicubic", false, false) => Ok(Resampling::Bicubic),
        ("bilinear", true, false) => Ok(Resampling::BilinearAntialiased),
        ("bilinear", false, false) => Ok(Resampling::Bilinear),
        ("bilinear", false, true) => Ok(Resampling::BilinearAligned),
        _ => Err(format!(
            "pos_embed_interp_mode {mode:?} with pos_embed_antialias = {antialias} and pos_embed_align_corners = \
             {aligned} is not supported"
        )),
    }
}

/// The options of this class whose effect is known here, or that only matter to training, beside those of all classes.
const KNOWN: &[&str] = &[
    "act_layer", "class_token", "fc_norm", "final_norm", "fix_init", "patch_drop_rate", "pos_embed_align_corners",
    "pos_embed_antialias", "pos_embed_ar_preserving", "pos_embed_grid_size", "pos_embed_interp_mode", "pre_norm",
    "reg_tokens", "weight_init",
];
