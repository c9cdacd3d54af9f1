//! The transformers format of `SigLIP` 2 whose images keep their shape (`NaFlex`), on one grid of patches.
//!
//! Reference: transformers' `modeling_siglip2.py`. The patch embedding is a product with flattened patches, which is a
//! convolution; the table of positions is resampled to the grid of each image. All else is `SigLIP`'s. Checkpoints of a
//! fixed resolution are `SigLIP` models by their config.

use super::hf_siglip;
use super::prelude::*;
use super::{hf, hf_clip};

/// transformers' `SigLIP` 2.
pub const FAMILY: Family = Family {
    name: "transformers SigLIP 2",
    recognises: |config| config["model_type"] == "siglip2" || config["model_type"] == "siglip2_vision_model",
    spec,
    usual_size,
    mapping,
    ignores: hf_siglip::ignores,
};

/// The architecture.
fn spec(description: &Description, header: &Header) -> Result<VitSpec, String> {
    let vision = Config(hf_clip::vision_config(&description.config));
    let spec = hf_siglip::spec(description, header, Interpolation::Bilinear)?;
    let patches = vision.integer("num_patches", 256)?;
    let side = patches.isqrt();
    if side * side != patches {
        return Err(format!("num_patches = {patches} is no square"));
    }
    Ok(VitSpec {
        architecture: hf::class_name(&description.config, "Siglip2Model"),
        image_size: side.checked_mul(spec.patch.size).ok_or("num_patches and patch_size are too large")?.into(),
        // The whole image, as there, though not in its shape.
        input: BackboneDefaults { resize: ResizeMode::Squash, ..spec.input },
        positions: Positions::Table(PositionTable { resampling: Resampling::BilinearAntialiased, ..hf::positions(0) }),
        ..spec
    })
}

/// The largest square of as many patches as the image processor allows.
fn usual_size(description: &Description) -> Option<Size> {
    let processor = &description.preprocessor;
    let side = |key: &str| processor[key].as_u64().and_then(|value| usize::try_from(value).ok());
    side("max_num_patches")?.isqrt().checked_mul(side("patch_size")?).map(Size::from)
}

/// Where a parameter lies.
fn mapping(name: ParamName, header: &Header) -> WeightMapping {
    match (name.layer, name.part, hf_siglip::mapping(name, header)) {
        (Layer::PatchEmbed, Part::Weight, WeightMapping::One(theirs)) => WeightMapping::Patches(theirs),
        (.., mapping) => mapping,
    }
}
