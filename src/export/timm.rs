//! timm's format: `timm.create_model("local-dir:FOLDER", pretrained=True)`.
//!
//! Reference: timm's `_hub.py` and `vision_transformer.py`. The architecture is only a starting point: every option is
//! written out in `model_args`, so the file does not depend on what a name stands for.

use super::{ExportModel, Format, Layout, adapt, cannot, card, files, notes, readback, statistics};
use crate::backbone::{
    Coordinates, Description, FAMILIES, Family, Header, Layer, LearntAngles, NormSpec, OutputSpec, ParamName, Part,
    Pool, PoolingSpec, PositionTable, Positions, Resampling, TIMM_BEIT, TIMM_EVA, TIMM_RELPOS, VitSpec,
    keeps_gate_apart,
};
use crate::config::ResizeMode;
use crate::data::transform::{Interpolation, Preprocess};
use crate::error::Result;
use crate::forms::decimal;
use crate::nn::{Activation, Pairs};
use crate::system::json::write_json;
use candle_core::Tensor;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// timm's format.
pub const FORMAT: Format = Format {
    name: "timm",
    opened_by: "A folder for timm.create_model(\"local-dir:PATH\", pretrained=True)",
    layout: Layout::Folder,
    obstacles: |model| {
        let additions = model.additions();
        if additions.is_empty() { lacking(model) } else { additions }
    },
    write,
    logits: readback::logits,
    checked_by: readback::BY,
};

/// Architectures to start from, for models that timm does not have: plain, with CLIP's epsilon, distilled, gated, and
/// those of the class `Eva` by their epsilon, with relative positions, with RMS norms.
const STARTS: &[&str] = &[
    "vit_base_patch16_224", "vit_base_patch16_clip_224", "deit_base_distilled_patch16_224", "vit_giant_patch14_dinov2",
    "vit_small_patch16_dinov3_qkvb", "eva02_tiny_patch14_224", "beit_base_patch16_224", "aimv2_large_patch14_224",
];

fn write(model: &ExportModel, folder: &Path, _name: &str) -> Result<Vec<String>> {
    let usage = format!(
        "```python\nimport timm\nmodel = timm.create_model(\"local-dir:{}\", pretrained=True).eval()\n\
             transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model), is_training=False)\n\
             ```",
        card::PLACE
    );
    write_as(model, folder, &usage)
}

/// Writes the model with a card that says how it is used.
pub(super) fn write_as(model: &ExportModel, folder: &Path, usage: &str) -> Result<Vec<String>> {
    let model = adapted(model.clone())?;
    let start = start(&model.spec).ok_or_else(|| cannot(&FORMAT, &model, &[form(&model.spec)]))?;
    let mut notes = notes(&model.preprocess);
    if start.norms.eps != model.spec.norms.eps {
        notes.push(format!(
            "timm's layer norms add {} to the variance, the model's add {}",
            decimal(start.norms.eps),
            decimal(model.spec.norms.eps)
        ));
    }
    write_json(&folder.join("config.json"), &config(&model, &start.architecture))?;
    files::write_tensors(folder, &parameters(&model, &start.architecture)?)?;
    card::write(folder, &model, usage, &notes)?;
    Ok(notes)
}

/// What timm's classes cannot express of a model without additions.
pub(super) fn lacking(model: &ExportModel) -> Vec<String> {
    let found = obstacles(&model.spec);
    let formless = || adapted(model.clone()).is_ok_and(|model| start(&model.spec).is_none());
    if found.is_empty() && formless() { vec![form(&model.spec)] } else { found }
}

fn form(spec: &VitSpec) -> String {
    format!("this form of {}", spec.architecture)
}

/// What no option of timm's classes can express.
fn obstacles(spec: &VitSpec) -> Vec<String> {
    let all = [
        (spec.pooling.pool == Pool::ClsAvg, "features of the class token beside the mean patch"),
        (
            spec.prefix.distillation && spec.pooling.pool != Pool::Distilled,
            "another pooling than the mean of class and distillation token",
        ),
        (!spec.prefix.distillation && spec.pooling.pool == Pool::Distilled, "the mean of several class tokens"),
        (spec.prefix.distillation && spec.mlp.is_gated(), "a SwiGLU beside a distillation token"),
        (spec.prefix.distillation && spec.prefix.registers > 0, "registers beside a distillation token"),
        (spec.norm_pre && spec.patch.bias, "a bias of the patch embedding before a layer norm"),
        (spec.pooling.norm && spec.pooling.fc_norm, "layer norms both before and after the pooling"),
    ];
    all.into_iter().filter(|(met, _)| *met).map(|(_, what)| what.to_owned()).collect()
}

/// The same function in the terms of timm's classes.
fn adapted(mut model: ExportModel) -> candle_core::Result<ExportModel> {
    let prefix = model.spec.prefix_tokens();
    if model.spec.positions.prefix() < prefix {
        adapt::with_positioned_prefix(&mut model, 0)?;
    }
    if !model.spec.norm_pre {
        adapt::with_patch_bias(&mut model)?;
    }
    Ok(model)
}

/// The architecture to start from, read with the model's options: the model's own if timm has that name, else one that differs
/// in the epsilon at most.
fn start(spec: &VitSpec) -> Option<VitSpec> {
    let candidates = std::iter::once(spec.architecture.as_str()).chain(STARTS.iter().copied());
    let read: Vec<VitSpec> =
        candidates.filter_map(|name| reading(spec, name)).filter(|read| same(read, spec)).collect();
    read.iter().find(|read| read.norms.eps == spec.norms.eps).or(read.first()).cloned()
}

/// What timm would build from an architecture and the model's options.
fn reading(spec: &VitSpec, architecture: &str) -> Option<VitSpec> {
    let family = family(architecture)?;
    let config = json!({ "architecture": architecture, "model_args": model_args(spec, family, architecture) });
    (family.spec)(&Description { config, preprocessor: Value::Null }, &Header::new()).ok()
}

/// The family of one of timm's architectures.
fn family(architecture: &str) -> Option<&'static Family> {
    let config = json!({ "architecture": architecture });
    FAMILIES.iter().copied().find(|family| (family.recognises)(&config))
}

/// Whether two architectures compute the same, but for the epsilon.
fn same(a: &VitSpec, b: &VitSpec) -> bool {
    let bare = |spec: &VitSpec| VitSpec {
        architecture: String::new(),
        norms: NormSpec { eps: 0.0, ..spec.norms },
        positions: {
            // How positions are resampled no longer matters once they are.
            let mut positions = spec.positions;
            if let Positions::Relative(how) = &mut positions {
                *how = Resampling::Geometric;
            }
            if let Some(table) = positions.table_mut() {
                *table = PositionTable { resampling: Resampling::Bicubic, rounded: false, of_square: false, ..*table };
            }
            positions
        },
        pooling: PoolingSpec { query: spec.pool_query(), ..spec.pooling },
        input: a.input,
        outputs: OutputSpec::default(),
        ..spec.clone()
    };
    bare(a) == bare(b)
}

/// Every option of the timm class of this family.
fn model_args(spec: &VitSpec, family: &Family, architecture: &str) -> Value {
    let mut own = match family.name {
        name if name == TIMM_EVA.name => eva_args(spec),
        name if name == TIMM_BEIT.name => beit_args(spec),
        name if name == TIMM_RELPOS.name => relpos_args(spec),
        _ => vit_args(spec, architecture),
    };
    own["img_size"] = json!(spec.image_size);
    own["patch_size"] = json!(spec.patch.size);
    own["embed_dim"] = json!(spec.width);
    own["depth"] = json!(spec.depth);
    own["num_heads"] = json!(spec.attention.heads);
    own["qkv_bias"] = json!(spec.attention.qkv_bias);
    own["init_values"] = json!(spec.layer_scale.then_some(1e-5));
    own["global_pool"] = json!(pool_name(spec));
    own
}

fn pool_name(spec: &VitSpec) -> &'static str {
    match spec.pooling.pool {
        Pool::Avg => "avg",
        Pool::Attention => "map",
        _ => "token",
    }
}

/// The further options of timm's `Eva`.
fn eva_args(spec: &VitSpec) -> Value {
    let query = spec.pool_query();
    let mut args = json!({
        "mlp_ratio": ratio(spec.mlp.hidden, spec.width),
        "swiglu_mlp": spec.mlp.is_gated(),
        "swiglu_align_to": 0,
        "use_post_norm": spec.norms.behind,
        "scale_mlp": spec.mlp.norm,
        "scale_attn_inner": spec.attention.norm,
        "qk_norm": spec.attention.qk_norm,
        // Written even where it says what timm's class does by itself: the architecture may say otherwise, and a null that is
        // passed on by transformers does not change that.
        "num_kv_heads": (!spec.norms.behind).then_some(spec.attention.heads),
        "attn_only_layer_scale": spec.mlp.unscaled,
        "attn_type": if spec.attention.key_bias { "rope" } else { "eva" },
        "qkv_fused": true,
        "class_token": spec.prefix.class,
        "num_reg_tokens": spec.prefix.registers,
        "no_embed_class": spec.positions.prefix() == 0 && spec.prefix_tokens() > 0,
        "use_abs_pos_emb": spec.positions.table().is_some(),
        "use_rot_pos_emb": spec.positions.rotary().is_some(),
        "use_pre_transformer_norm": spec.norm_pre,
        "use_post_transformer_norm": spec.pooling.norm,
        "use_fc_norm": spec.pooling.fc_norm,
        "attn_pool_num_heads": query.map(|query| query.heads),
        "attn_pool_mlp_ratio": query.map(|query| ratio(query.hidden, spec.width)),
    });
    if let Some(rotary) = spec.positions.rotary() {
        let (kind, first, stretched_to, x_first) = match rotary.coordinates {
            Coordinates::Centres => ("dinov3", 0.0, None, false),
            Coordinates::Numbers { first, stretched_to, x_first } => ("cat", first, stretched_to, x_first),
        };
        args["rope_type"] = json!(if rotary.learnt == LearntAngles::Frequencies { "mixed" } else { kind });
        args["rope_grid_offset"] = json!(first);
        args["rope_grid_indexing"] = json!(if x_first { "xy" } else { "ij" });
        args["ref_feat_shape"] = json!(stretched_to.map(|side| [side, side]));
        args["rope_temperature"] = json!(rotary.temperature);
        args["rope_rotate_half"] = json!(rotary.pairs == Pairs::Halves);
    }
    args
}

/// The further options of timm's `Beit`.
fn beit_args(spec: &VitSpec) -> Value {
    json!({
        "mlp_ratio": ratio(spec.mlp.hidden, spec.width),
        "use_abs_pos_emb": false,
        "use_rel_pos_bias": true,
        "use_fc_norm": spec.pooling.fc_norm,
    })
}

/// The further options of timm's `VisionTransformerRelPos`.
fn relpos_args(spec: &VitSpec) -> Value {
    let hidden = if let Positions::RelativeMlp { hidden } = spec.positions { hidden } else { 0 };
    json!({
        "mlp_ratio": ratio(spec.mlp.hidden, spec.width),
        "class_token": spec.prefix.class,
        "fc_norm": spec.pooling.fc_norm,
        "rel_pos_type": "mlp",
        "rel_pos_dim": hidden,
        "shared_rel_pos": false,
    })
}

/// The further options of timm's `VisionTransformer`.
fn vit_args(spec: &VitSpec, architecture: &str) -> Value {
    let hidden = if keeps_gate_apart(architecture) { spec.mlp.hidden } else { spec.mlp.expanded() };
    let mut args = json!({
        "mlp_ratio": ratio(hidden, spec.width),
        "class_token": spec.prefix.class,
        "no_embed_class": spec.positions.prefix() == 0 && spec.prefix_tokens() > 0,
        "reg_tokens": spec.prefix.registers,
        "pre_norm": spec.norm_pre,
        "proj_bias": spec.attention.proj_bias,
        "scale_attn_norm": spec.attention.norm,
        "qk_norm": spec.attention.qk_norm,
        "scale_mlp_norm": spec.mlp.norm,
        "pool_include_prefix": spec.pool_query().is_some_and(|query| query.reads_prefix),
        "final_norm": spec.pooling.norm || spec.pooling.fc_norm,
        "fc_norm": spec.pooling.fc_norm,
    });
    if let Some(activation) = spec.mlp.activation() {
        args["act_layer"] = json!(match activation {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::QuickGelu => "quick_gelu",
        });
    }
    args
}

/// The ratio whose product with the width, cut to a whole number, is the width of the MLP.
fn ratio(outputs: usize, width: usize) -> f64 {
    let width = width as f64;
    let ratio = outputs as f64 / width;
    if (width * ratio) as usize == outputs { ratio } else { (outputs as f64 + 0.5) / width }
}

fn config(model: &ExportModel, architecture: &str) -> Value {
    let Preprocess { geometry, normalization, .. } = &model.preprocess;
    let [mean, std] = statistics(normalization);
    let (crop_mode, crop_pct) = match geometry.resize {
        ResizeMode::Squash => ("squash", 1.0),
        ResizeMode::Letterbox => ("border", 1.0),
        ResizeMode::Crop => ("center", geometry.crop_pct()),
    };
    let args = family(architecture).map_or(Value::Null, |family| model_args(&model.spec, family, architecture));
    json!({
        "architecture": architecture,
        "num_classes": model.classes.len(),
        "num_features": model.spec.features(),
        "global_pool": args["global_pool"],
        "model_args": args,
        "label_names": model.classes,
        "pretrained_cfg": {
            "tag": model.name,
            "custom_load": false,
            "input_size": model.spec.image_size.shape(),
            "fixed_input_size": true,
            "interpolation": match geometry.interpolation {
                Interpolation::Bilinear => "bilinear",
                Interpolation::Bicubic => "bicubic",
            },
            "crop_pct": crop_pct,
            "crop_mode": crop_mode,
            "mean": mean,
            "std": std,
            "num_classes": model.classes.len(),
            "pool_size": null,
            "first_conv": "patch_embed.proj",
            "classifier": if model.spec.prefix.distillation { json!(["head", "head_dist"]) } else { json!("head") },
        },
    })
}

/// Names by which a family recognises the forms that the options of [`model_args`] ask for.
fn spellings(spec: &VitSpec, family: &Family, architecture: &str) -> Header {
    let eva = [TIMM_EVA.name, TIMM_BEIT.name].contains(&family.name);
    let names = [
        (eva && !spec.attention.key_bias, "attn.q_bias"),
        (eva && spec.layer_scale, "gamma_1"),
        (eva && spec.layer_scale, "gamma_2"),
        (keeps_gate_apart(architecture) || (eva && spec.mlp.is_gated() && spec.mlp.norm), "mlp.fc1_g.weight"),
    ];
    let named = |block| {
        names.iter().filter(|(stored, _)| *stored).map(move |(_, name)| (format!("blocks.{block}.{name}"), Vec::new()))
    };
    (0..spec.depth).flat_map(named).collect()
}

/// The tensors by the names of the class that `architecture` is of.
fn parameters(model: &ExportModel, architecture: &str) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    if let Some(family) = family(architecture) {
        let header = spellings(&model.spec, family, architecture);
        let mut frequencies = Vec::new();
        for (name, param) in model.params.iter() {
            let Ok(name) = name.parse::<ParamName>() else { continue };
            if let (Layer::RopeFreqs, Some(block)) = (name.layer, name.block) {
                frequencies.push((block, param.tensor().unsqueeze(1)?));
                continue;
            }
            let mapping = (family.mapping)(name, &header);
            tensors.extend(mapping.names().iter().cloned().zip(mapping.disassemble(param.tensor())?));
        }
        // Those of all blocks are one tensor there.
        frequencies.sort_by_key(|(block, _)| *block);
        let frequencies: Vec<Tensor> = frequencies.into_iter().map(|(_, tensor)| tensor).collect();
        if !frequencies.is_empty() {
            tensors.insert("rope.freqs".into(), Tensor::cat(&frequencies, 1)?);
        }
    }
    if model.spec.pooling.pool == Pool::Distilled {
        // timm averages the logits of both tokens: with one head for both, those of their mean.
        for part in [Part::Weight, Part::Bias] {
            if let Some(head) = model.params.get(Layer::Head.part(part)) {
                tensors.insert(Layer::HeadDist.part(part).into(), head);
            }
        }
    }
    Ok(tensors)
}
