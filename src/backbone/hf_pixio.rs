//! The transformers format of Pixio.
//!
//! Reference: transformers' `modeling_pixio.py`. A plain tower with several class tokens in one tensor, each with a position of
//! its own. The features are their mean, as in the library; here the first is the class token and the others are registers.

use super::hf;
use super::prelude::*;
use super::{hf_dinov2, hf_vit};

/// The class tokens.
const TOKENS: &str = "embeddings.cls_token";

/// transformers' Pixio.
pub const FAMILY: Family = Family {
    name: "transformers Pixio",
    recognises: |config| config["model_type"] == "pixio",
    spec,
    usual_size: |_| None,
    mapping,
    ignores: |name, _| hf_vit::ignores(name),
};

/// The architecture.
fn spec(description: &Description, _: &Header) -> Result<VitSpec, String> {
    let sizes = [("hidden_size", 1280), ("num_hidden_layers", 32), ("num_attention_heads", 16), ("image_size", 256)];
    let config = hf::completed(&description.config, &sizes);
    let input = BackboneDefaults::new(IMAGENET, ResizeMode::Squash, Interpolation::Bicubic, 1.0);
    let spec = hf_dinov2::tower(&config, 16, input, &description.preprocessor)?;
    let tokens = Config(&config).integer("n_cls_tokens", 8)?;
    if tokens < 2 {
        return Err(format!("n_cls_tokens = {tokens} is not supported; supported: 2 and more"));
    }
    Ok(VitSpec {
        architecture: hf::class_name(&config, "PixioModel"),
        prefix: PrefixSpec { registers: tokens - 1, ..spec.prefix },
        positions: Positions::Table(hf::positions(tokens)),
        layer_scale: false,
        pooling: PoolingSpec::of(Pool::Distilled),
        ..spec
    })
}

/// Where a parameter lies: inside blocks by `DINOv2`'s names in the files of the hub, where the MLP may have `ViT`'s, and by
/// those alone as transformers 5 names them in memory.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let of = header.get(TOKENS).and_then(|shape| shape.get(1)).copied().unwrap_or(0);
    let rows = |first| WeightMapping::Rows { name: TOKENS.into(), first, of, batched: true };
    let has = |part: &str| header.keys().any(|name| name.contains(part));
    match name.layer {
        Layer::ClsToken => rows(0),
        Layer::RegToken => rows(1),
        Layer::Fc1 | Layer::Fc2 if has(".intermediate.") => hf_vit::mapping(name, header, ""),
        _ if has("layers.") => hf_vit::mapping(name, header, ""),
        _ => hf_dinov2::prefixed(name, header, ""),
    }
}
