//! The transformers format of CLIP's image tower, alone, with its projection, or inside the whole model, and of the models
//! that differ from CLIP in their text towers only: `MetaCLIP` 2, Chinese-CLIP and `AltCLIP`.
//!
//! Reference: transformers' `modeling_{clip,metaclip_2,chinese_clip,altclip}.py`. The features are the class token after
//! `post_layernorm`; only the classes with a classifier read something else, the mean of the patch tokens without that norm.

use super::hf::{self, Defaults, prefix_if_used};
use super::prelude::*;

const PREFIX: &str = "vision_model.";
const CLASSIFIER: &str = "classifier.weight";

/// The `model_type` of the whole models; that of their image towers alone ends in `_vision_model`.
const WHOLE: [&str; 4] = ["clip", "metaclip_2", "chinese_clip", "altclip"];

/// Prefixes of the text tower and of what compares texts with images, in a file of the whole model.
const TEXT: &[&str] = &["text_model.", "text_projection.", "logit_scale"];

/// transformers' CLIP.
pub const FAMILY: Family =
    Family { name: "transformers CLIP", recognises, spec, usual_size: |_| None, mapping, ignores };

fn recognises(config: &Value) -> bool {
    let model = config["model_type"].as_str().unwrap_or_default();
    WHOLE.contains(&model.strip_suffix("_vision_model").unwrap_or(model))
}

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let vision = vision_config(&description.config);
    let input = BackboneDefaults::new(CLIP, ResizeMode::Crop, Interpolation::Bicubic, 1.0);
    let defaults = Defaults { patch: 32, activation: Activation::QuickGelu, eps: 1e-5, input };
    let spec = hf::base(&Config(vision), &defaults, &description.preprocessor)?;
    let outputs = OutputSpec {
        classes: outputs(header, CLASSIFIER),
        projection: outputs(header, "visual_projection.weight"),
        ..OutputSpec::default()
    };
    let pool = if outputs.classes > 0 { Pool::Avg } else { Pool::Cls };
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "CLIPModel"),
        patch: PatchSpec { bias: false, ..spec.patch },
        norm_pre: true,
        attention: AttentionSpec { qkv_bias: true, ..spec.attention },
        pooling: PoolingSpec { norm: outputs.classes == 0, ..PoolingSpec::of(pool) },
        outputs,
        ..spec
    })
}

/// Where a parameter lies.
pub(super) fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let (prefix, part) = (prefix_if_used(header, PREFIX), name.part.text());
    tower(name, prefix).unwrap_or_else(|| {
        WeightMapping::One(match name.layer {
            Layer::NormPre => format!("{prefix}pre_layrnorm.{part}"),
            Layer::Head => format!("classifier.{part}"),
            Layer::Projection => format!("visual_projection.{part}"),
            _ => name.into(),
        })
    })
}

/// What lies beside the image tower, or is not read by the classifier.
fn ignores(name: &str, header: &Header) -> bool {
    let unused_norm = header.contains_key(CLASSIFIER) && name.starts_with("vision_model.post_layernorm.");
    unused_norm || TEXT.iter().any(|text| name.starts_with(text)) || is_index(name)
}

/// The vision part of a config.
pub(super) fn vision_config(config: &Value) -> &Value {
    tower_config(config, "vision")
}

/// The part of a config for one tower. The older key `…_config_dict` takes precedence, as in the library.
pub(super) fn tower_config<'c>(config: &'c Value, tower: &str) -> &'c Value {
    let alone = format!("_{tower}_model");
    match (&config[format!("{tower}_config_dict")], &config[format!("{tower}_config")]) {
        (older @ Value::Object(_), _) => older,
        (_, nested @ Value::Object(_)) => nested,
        _ if config["model_type"].as_str().is_some_and(|model| model.ends_with(&alone)) => config,
        _ => &Value::Null,
    }
}

/// Older files carry the row numbers of their embedding tables.
pub(super) fn is_index(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
}

/// The names that the image towers of CLIP and `SigLIP` share; none for the names in which they differ.
pub(super) fn tower(name: ParamName, prefix: &str) -> Option<WeightMapping> {
    let part = name.part.text();
    Some(match name.layer {
        Layer::ClsToken => WeightMapping::Token(format!("{prefix}embeddings.class_embedding")),
        Layer::PosEmbed => WeightMapping::Table(format!("{prefix}embeddings.position_embedding.weight")),
        Layer::PatchEmbed => WeightMapping::One(format!("{prefix}embeddings.patch_embedding.{part}")),
        Layer::Norm => WeightMapping::One(format!("{prefix}post_layernorm.{part}")),
        _ => return block(name, prefix),
    })
}

/// The names inside a block of CLIP's and `SigLIP`'s image and text towers.
pub(super) fn block(name: ParamName, prefix: &str) -> Option<WeightMapping> {
    let block = name.block?;
    let at = |module: &str| format!("{prefix}encoder.layers.{block}.{module}.{}", name.part.text());
    Some(match name.layer {
        Layer::Qkv => {
            WeightMapping::Stack(["q_proj", "k_proj", "v_proj"].map(|of| at(&format!("self_attn.{of}"))).into())
        }
        Layer::Proj => WeightMapping::One(at("self_attn.out_proj")),
        Layer::Norm1 => WeightMapping::One(at("layer_norm1")),
        Layer::Norm2 => WeightMapping::One(at("layer_norm2")),
        other => WeightMapping::One(at(other.text())),
    })
}
