//! The transformers formats of `BEiT`, `BEiT` v2 and `Data2VecVision`, which are one architecture.
//!
//! Reference: transformers' `modeling_beit.py` and `modeling_data2vec_vision.py`. The blocks are google/vit's with
//! LayerScale, without a bias of the keys, and with tables of relative positions that are resampled in each forward pass.
//! Where all blocks share one table, each gets a copy of its own, and training may move the copies apart.

use super::hf::{self, Defaults, Spelling, prefix_if_used};
use super::hf_vit;
use super::prelude::*;

const PREFIXES: [&str; 2] = ["beit.", "data2vec_vision."];

/// The table of all blocks, in the files of the hub and as transformers 5 names it in memory.
const SHARED: [&str; 2] = ["encoder.relative_position_bias", "shared_position_bias"];
const TABLE: &str = "relative_position_bias_table";

/// transformers' `BEiT` and `Data2VecVision`.
pub const FAMILY: Family = Family {
    name: "transformers BEiT and Data2VecVision",
    recognises: |config| ["beit", "data2vec-vision"].iter().any(|model| config["model_type"] == **model),
    spec,
    usual_size: |description| hf::input_size(&description.preprocessor),
    mapping,
    ignores,
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let config = Config(&description.config);
    let input = BackboneDefaults::new(SYMMETRIC, ResizeMode::Squash, Interpolation::Bilinear, 1.0);
    let defaults = Defaults { patch: 16, activation: Activation::Gelu, eps: 1e-12, input };
    let spec = hf::base(&config, &defaults, &description.preprocessor)?;
    let kinds = ["absolute_position_embeddings", "relative_position_bias", "shared_relative_position_bias"];
    let positions = match kinds.map(|kind| config.flag(&format!("use_{kind}"), false)) {
        [true, false, false] => spec.positions,
        [false, true, false] | [false, false, true] => Positions::Relative(Resampling::Bilinear),
        used => {
            let used: Vec<&str> = kinds.into_iter().zip(used).filter_map(|(kind, used)| used.then_some(kind)).collect();
            return Err(format!("one of {} is supported, not [{}]", kinds.join(", "), used.join(", ")));
        }
    };
    let mean = config.flag("use_mean_pooling", true);
    let prefix = prefix(header);
    let fc_norm = mean && header.contains_key(&format!("{prefix}pooler.layernorm.weight"));
    // A file of masked pretraining has the norm of its predictions instead of the pooler's, one without a pooler has none.
    let norm = !mean || predicts(header, prefix);
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "BeitModel"),
        positions,
        attention: AttentionSpec { qkv_bias: true, key_bias: false, ..spec.attention },
        layer_scale: config.number("layer_scale_init_value", 0.1) > 0.0,
        pooling: PoolingSpec { norm, fc_norm, ..PoolingSpec::of(if mean { Pool::Avg } else { Pool::Cls }) },
        outputs: OutputSpec { classes: outputs(header, "classifier.weight"), ..OutputSpec::default() },
        ..spec
    })
}

fn prefix(header: &Header) -> &'static str {
    PREFIXES.into_iter().find(|prefix| !prefix_if_used(header, prefix).is_empty()).unwrap_or("")
}

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let (prefix, part) = (prefix(header), name.part.text());
    let Some(block) = name.block else {
        return match name.layer {
            Layer::FcNorm => WeightMapping::One(format!("{prefix}pooler.layernorm.{part}")),
            Layer::Norm if predicts(header, prefix) => WeightMapping::One(format!("layernorm.{part}")),
            _ => hf_vit::mapping(name, header, prefix),
        };
    };
    let names = Spelling::of(header, prefix);
    let at = |module: &str| format!("{prefix}{}.{block}.{module}", names.blocks);
    match (name.layer, name.part) {
        (Layer::Qkv, Part::Bias) => WeightMapping::NoKey([0, 2].map(|third| at(&format!("{}.bias", names.qkv[third])))),
        (Layer::Scale1, _) => WeightMapping::One(at("lambda_1")),
        (Layer::Scale2, _) => WeightMapping::One(at("lambda_2")),
        (Layer::RelPos, _) => {
            let shared = SHARED.map(|module| format!("{prefix}{module}.{TABLE}"));
            let inside = names.qkv[0].strip_suffix(".query").map_or_else(String::new, |inside| format!("{inside}."));
            let own = || at(&format!("{inside}relative_position_bias.{TABLE}"));
            WeightMapping::One(shared.into_iter().find(|name| header.contains_key(name)).unwrap_or_else(own))
        }
        _ => hf_vit::mapping(name, header, prefix),
    }
}

/// Whether the final norm is the one before the predictions of masked pretraining.
fn predicts(header: &Header, prefix: &str) -> bool {
    header.contains_key("layernorm.weight") && !header.contains_key(&format!("{prefix}layernorm.weight"))
}

/// What served pretraining only, and the indices in older files, which follow from the grid.
fn ignores(name: &str, header: &Header) -> bool {
    let unread_norm = name.starts_with("layernorm.") && !predicts(header, prefix(header));
    unread_norm || name.starts_with("lm_head.") || name.ends_with("relative_position_index") || hf_vit::ignores(name)
}
