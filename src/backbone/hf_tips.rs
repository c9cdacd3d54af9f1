//! The transformers format of `TIPSv2`'s image tower, alone or in a whole model.
//!
//! Reference: transformers' `modeling_tipsv2.py`. It is `DINOv2` with a register that serves as a second class token, which is
//! not read here, and with positions resampled by the bilinear filter. The features are the class token, as in the library.

use super::hf;
use super::hf_clip::vision_config;
use super::hf_dinov2;
use super::prelude::*;

/// What stands before the names, in the files of the hub and as transformers names them in memory.
const PREFIXES: [&str; 2] = ["vision_encoder.", "vision_model."];

/// Prefixes of the text tower and of what compares texts with images, in a file of the whole model.
const TEXT: [&str; 3] = ["text_encoder.", "text_model.", "temperature"];

/// transformers' `TIPSv2`.
pub const FAMILY: Family = Family {
    name: "transformers TIPSv2",
    recognises: |config| ["tipsv2", "tipsv2_vision_model"].iter().any(|model| config["model_type"] == **model),
    spec,
    usual_size: |_| None,
    mapping,
    ignores: |name, _| name.ends_with("mask_token") || TEXT.iter().any(|text| name.starts_with(text)),
};

/// The architecture.
fn spec(description: &Description, _: &Header) -> Result<VitSpec, String> {
    let config = hf::completed(vision_config(&description.config), &[("image_size", 448)]);
    let input = BackboneDefaults::new(([0.0; 3], [1.0; 3]), ResizeMode::Squash, Interpolation::Bilinear, 1.0);
    let spec = hf_dinov2::tower(&config, 14, input, &description.preprocessor)?;
    let registers = Config(&config).integer("num_register_tokens", 1)?;
    let resampling = Resampling::BilinearAntialiased;
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "Tipsv2VisionModel"),
        prefix: PrefixSpec { registers, ..spec.prefix },
        positions: Positions::Table(PositionTable { resampling, ..hf::positions(1) }),
        pooling: PoolingSpec::of(Pool::Cls),
        ..spec
    })
}

/// Where a parameter lies: by timm's names in the files of the hub, but for a few.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    let prefix = PREFIXES.iter().find(|prefix| header.keys().any(|name| name.starts_with(**prefix)));
    let prefix = prefix.copied().unwrap_or_default();
    if !header.contains_key(&format!("{prefix}patch_embed.proj.weight")) {
        return hf_dinov2::prefixed(name, header, prefix);
    }
    let at = |module: &str| {
        WeightMapping::One(match name.block {
            Some(block) => format!("{prefix}blocks.{block}.{module}.{}", name.part.text()),
            None => format!("{prefix}{module}"),
        })
    };
    let has = |module: &str| header.contains_key(&format!("{prefix}blocks.0.{module}.weight"));
    match name.layer {
        Layer::RegToken => at("register_tokens"),
        Layer::Fc1 => at(["mlp.w12", "mlp.c_fc"].into_iter().find(|module| has(module)).unwrap_or("mlp.fc1")),
        Layer::Fc2 => at(["mlp.w3", "mlp.c_proj"].into_iter().find(|module| has(module)).unwrap_or("mlp.fc2")),
        _ => WeightMapping::One(format!("{prefix}{name}")),
    }
}
