//! The format of `open_clip`: `open_clip_config.json` beside `open_clip_model.safetensors`.
//!
//! Reference: `open_clip`'s `model.py`, `transformer.py` and `timm_model.py`. The image tower is its own vision
//! transformer (`visual.*`), or a model of timm (`visual.trunk.*`) with an optional projection (`visual.head.proj`).
//! The features are what the projection reads.

use super::prelude::*;
use super::timm_args::TimmModel;
use super::{hf, timm, timm_eva};

const TRUNK: &str = "visual.trunk.";
/// The projection behind such a tower, where it has one.
const PROJ: &str = "visual.head.proj.weight";

/// The text tower, inside the model or, with `custom_text`, as a part of its own, and what compares both.
const TEXT: &[&str] = &["transformer.", "token_embedding.", "ln_final.", "text_projection", "text.", "logit_"];

/// Options of either tower that change the arithmetic.
const UNSUPPORTED: &[&str] =
    &["qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"];

/// `open_clip`'s image towers.
pub const FAMILY: Family = Family {
    name: "open_clip",
    recognises: |config| config["model_cfg"]["vision_cfg"].is_object(),
    spec,
    usual_size: |_| None,
    mapping,
    ignores,
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let model = &description.config["model_cfg"];
    let vision = &model["vision_cfg"];
    let spec = match vision["timm_model_name"].as_str() {
        Some(name) => trunk(name, vision, header)?,
        None => native(model, vision)?,
    };
    Ok(VitSpec { input: input(&description.config["preprocess_cfg"]), ..spec })
}

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    if !header.keys().any(|name| name.starts_with(TRUNK)) {
        native_mapping(name)
    } else if name.layer == Layer::Projection {
        let module = if header.contains_key(PROJ) { "head.proj" } else { "trunk.head" };
        WeightMapping::One(format!("visual.{module}.{}", name.part.text()))
    } else {
        timm_eva::mapping(name, header, TRUNK)
    }
}

/// What lies beside the image tower, or is not read by the classifier.
fn ignores(name: &str, _: &Header) -> bool {
    let whole = ["positional_embedding", "attn_mask"];
    whole.contains(&name) || TEXT.iter().any(|text| name.starts_with(text))
}

/// `open_clip`'s own vision transformer.
fn native(model: &Value, vision: &Value) -> Result<VitSpec, String> {
    if vision["layers"].is_array() {
        return Err(
            "vision_cfg.layers is a list, so the image tower is a ResNet; supported: vision transformers".into()
        );
    }
    refuse(vision, "vision_cfg", &["attentional_pool"])?;
    let config = Config(vision);
    let width = config.integer("width", 768)?;
    let after_pool = config.flag("final_ln_after_pool", false);
    let pool = match vision["pool_type"].as_str() {
        None | Some("tok") => Pool::Cls,
        Some("avg") => Pool::Avg,
        Some(other) => return Err(format!("vision_cfg.pool_type {other:?} is not supported; supported: tok, avg")),
    };
    Ok(VitSpec {
        architecture: "open_clip VisionTransformer".into(),
        width,
        depth: config.integer("layers", 12)?,
        image_size: config.size("image_size", 224)?,
        patch: PatchSpec { size: config.integer("patch_size", 16)?, bias: false, norm: false },
        prefix: PrefixSpec { class: true, ..PrefixSpec::default() },
        positions: Positions::Table(PositionTable { resampling: Resampling::BicubicAntialiased, ..hf::positions(1) }),
        norm_pre: !config.flag("no_ln_pre", false),
        norms: NormSpec::layer(vision["norm_kwargs"]["eps"].as_f64().unwrap_or(1e-5) as f32),
        attention: AttentionSpec::of(width / config.integer("head_width", 64)?.max(1)),
        mlp: MlpSpec::plain(
            (width as f64 * config.number("mlp_ratio", 4.0)) as usize,
            activation(model, &vision["act_kwargs"])?,
        ),
        layer_scale: !vision["ls_init_value"].is_null(),
        pooling: PoolingSpec { norm: !after_pool, fc_norm: after_pool, ..PoolingSpec::of(pool) },
        outputs: OutputSpec { projection: Config(model).integer("embed_dim", 0)?, ..OutputSpec::default() },
        input: BackboneDefaults::new(CLIP, ResizeMode::Crop, Interpolation::Bicubic, 1.0),
    })
}

/// Refuses a tower that sets one of the unsupported options, or of `others`.
pub(super) fn refuse(tower: &Value, section: &str, others: &[&str]) -> Result<(), String> {
    let set = |option: &&&str| !matches!(tower[**option], Value::Null | Value::Bool(false));
    let found = UNSUPPORTED.iter().chain(others).find(set);
    found.map_or(Ok(()), |option| Err(format!("{section}.{option} = {} is not supported", tower[*option])))
}

/// The activation: exact GELU, its tanh approximation (CLIPA), or `QuickGELU` by the model's flag.
pub(super) fn activation(model: &Value, act_kwargs: &Value) -> Result<Activation, String> {
    let quick = model["quick_gelu"].as_bool().unwrap_or(false);
    match (quick, act_kwargs["approximate"].as_str()) {
        (true, None) => Ok(Activation::QuickGelu),
        (false, None | Some("none")) => Ok(Activation::Gelu),
        (false, Some("tanh")) => Ok(Activation::GeluTanh),
        (_, Some(other)) => {
            Err(format!("quick_gelu = {quick} with act_kwargs.approximate = {other:?} is not supported"))
        }
    }
}

/// A model of timm as image tower. It keeps the architecture's own activation, whatever `quick_gelu` says.
fn trunk(name: &str, vision: &Value, header: &Header) -> Result<VitSpec, String> {
    let pool = vision["timm_pool"].as_str().unwrap_or("avg");
    let projection = vision.get("timm_proj").map_or("linear", |projection| projection.as_str().unwrap_or("none"));
    if !matches!(projection, "linear" | "none" | "") {
        return Err(format!("vision_cfg.timm_proj {projection:?} is not supported; supported: linear, none"));
    }
    let model = |pool: Option<&str>| {
        let args = pool.map_or(Value::Null, |pool| serde_json::json!({ "global_pool": pool }));
        let model =
            TimmModel { architecture: name, args: &args, pool: None, image_size: None, tag: None, gated: false };
        if timm_eva::TABLE.knows(name) { timm_eva::spec(&model) } else { timm::spec(&model) }
    };
    // Without a projection the pooling is given when the tower is built, which also places the norm; with one, the
    // finished tower is told to pool otherwise.
    let mut spec = model((projection != "linear").then_some(pool))?;
    if projection == "linear" && !pool.is_empty() {
        spec.pooling.pool = model(Some(pool))?.pooling.pool;
    }
    // Without a projection behind it, the head of timm's tower is the projection: it is never a classifier here.
    let head = "visual.trunk.head";
    spec.outputs = OutputSpec {
        projection: outputs(header, PROJ).max(outputs(header, &format!("{head}.weight"))),
        projection_bias: [head, "visual.head.proj"].iter().any(|head| header.contains_key(&format!("{head}.bias"))),
        ..OutputSpec::default()
    };
    Ok(spec)
}

fn native_mapping(name: ParamName) -> WeightMapping {
    let part = name.part.text();
    match name.layer {
        Layer::ClsToken => WeightMapping::Token("visual.class_embedding".into()),
        Layer::PosEmbed => WeightMapping::Table("visual.positional_embedding".into()),
        Layer::PatchEmbed => WeightMapping::One(format!("visual.conv1.{part}")),
        Layer::Projection => WeightMapping::Transposed("visual.proj".into()),
        Layer::NormPre => WeightMapping::One(format!("visual.ln_pre.{part}")),
        Layer::Norm | Layer::FcNorm => WeightMapping::One(format!("visual.ln_post.{part}")),
        _ => block(name, "visual.").unwrap_or_else(|| WeightMapping::One(name.into())),
    }
}

/// The names inside a block of `open_clip`'s image and text towers.
pub(super) fn block(name: ParamName, prefix: &str) -> Option<WeightMapping> {
    let (block, part) = (name.block?, name.part.text());
    let theirs = match name.layer {
        Layer::Qkv => format!("attn.in_proj_{part}"),
        Layer::Proj => format!("attn.out_proj.{part}"),
        Layer::Norm1 => format!("ln_1.{part}"),
        Layer::Norm2 => format!("ln_2.{part}"),
        Layer::Scale1 => format!("ls_1.{part}"),
        Layer::Scale2 => format!("ls_2.{part}"),
        Layer::Fc1 => format!("mlp.c_fc.{part}"),
        Layer::Fc2 => format!("mlp.c_proj.{part}"),
        other => format!("{}.{part}", other.text()),
    };
    Some(WeightMapping::One(format!("{prefix}transformer.resblocks.{block}.{theirs}")))
}

/// `preprocess_cfg` over `open_clip`'s defaults: the short side to the image size, then the middle.
fn input(preprocess: &Value) -> BackboneDefaults {
    let values = Config(preprocess);
    BackboneDefaults {
        mean: values.triple("mean", CLIP.0),
        std: values.triple("std", CLIP.1),
        resize: match preprocess["resize_mode"].as_str() {
            Some("squash") => ResizeMode::Squash,
            Some("longest") => ResizeMode::Letterbox,
            _ => ResizeMode::Crop,
        },
        interpolation: values.interpolation(),
        crop_pct: 1.0,
    }
}
