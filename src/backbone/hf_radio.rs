//! The transformers format of RADIO.
//!
//! Reference: transformers' `modeling_radio.py`. The patch embedding is a product with flattened patches, which is a
//! convolution; one tensor holds the class tokens and the registers. Several tokens summarise an image in RADIO; here, as
//! in timm, the first is the class token and the others are registers. The model normalises its pixels itself.

use super::hf;
use super::hf_dinov2;
use super::prelude::*;
use serde_json::json;

/// The class tokens and registers, in the files of the hub and as transformers names them in memory.
const TOKENS: [&str; 2] = ["radio_model.model.patch_generator.cls_token.token", "embeddings.cls_register_token"];

/// transformers' RADIO.
pub const FAMILY: Family = Family {
    name: "transformers RADIO",
    recognises: |config| config["model_type"] == "radio",
    spec,
    usual_size: |description| Config(&description.config).size("image_size", 224).ok(),
    mapping,
    ignores: |name, _| ["input_conditioner.", "summary_idxs", "video_"].iter().any(|unread| name.contains(unread)),
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let largest = Config(&description.config).integer("max_img_size", 2048)?;
    let sizes = [("hidden_size", 1280), ("num_hidden_layers", 32), ("num_attention_heads", 16)];
    let mut own = hf::completed(&description.config, &sizes);
    // The images that the stored positions are for.
    own["image_size"] = json!(largest);
    let config = Config(&own);
    // First the image processor's statistics, then those of the model.
    let input = BackboneDefaults::new(([0.0; 3], [1.0; 3]), ResizeMode::Crop, Interpolation::Bicubic, 1.0);
    let spec = hf_dinov2::tower(&own, 16, input, &description.preprocessor)?;
    let (mean, std) = (config.triple("norm_mean", CLIP.0), config.triple("norm_std", CLIP.1));
    let (first, scale) = (spec.input.mean, spec.input.std);
    let input = BackboneDefaults {
        mean: std::array::from_fn(|i| first[i] + mean[i] * scale[i]),
        std: std::array::from_fn(|i| std[i] * scale[i]),
        ..spec.input
    };
    let tokens = tokens(header).map_or(0, |name| outputs(header, name));
    let resampling = Resampling::Bilinear;
    Ok(VitSpec {
        architecture: hf::class_name(&own, "RadioModel"),
        patch: PatchSpec { bias: false, ..spec.patch },
        prefix: PrefixSpec { registers: tokens.saturating_sub(1), ..spec.prefix },
        positions: Positions::Table(PositionTable { resampling, of_square: true, ..hf::positions(0) }),
        layer_scale: header.keys().any(|name| name.contains("layer_scale1.")),
        pooling: PoolingSpec { norm: false, ..PoolingSpec::of(Pool::Cls) },
        input,
        ..spec
    })
}

/// The name of the class tokens and registers.
fn tokens(header: &Header) -> Option<&'static str> {
    TOKENS.into_iter().find(|name| header.contains_key(*name))
}

/// Where a parameter lies: inside blocks by timm's names in the files of the hub.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let hub = header.contains_key(TOKENS[0]);
    let at = |hubs: &str, memory: &str| {
        if hub { format!("radio_model.model.patch_generator.{hubs}") } else { format!("embeddings.{memory}") }
    };
    let rows = |first| {
        let name = tokens(header).unwrap_or(TOKENS[1]);
        WeightMapping::Rows { name: name.into(), first, of: outputs(header, name), batched: false }
    };
    match name.layer {
        Layer::ClsToken => rows(0),
        Layer::RegToken => rows(1),
        Layer::PosEmbed => WeightMapping::One(at("pos_embed", "position_embedding")),
        Layer::PatchEmbed => WeightMapping::Flattened(at("embedder.weight", "patch_projection.weight")),
        _ if hub => {
            let theirs = name
                .to_string()
                .replace("ls1.gamma", "layer_scale1.lambda1")
                .replace("ls2.gamma", "layer_scale2.lambda1");
            WeightMapping::One(format!("radio_model.model.{theirs}"))
        }
        _ => hf_dinov2::prefixed(name, header, ""),
    }
}
