//! The logits of an exported folder, opened as any other pretrained model would be.

use crate::backbone::{Backbone, Layer, Vit};
use crate::error::Result;
use crate::nn::Mode;
use candle_core::Tensor;
use std::path::Path;

/// What this module runs a folder with.
pub(super) const BY: &str = "vitadapt's own reader of the format";

/// pixels (B, 3, S, S) to logits (B, classes), from the files of `folder` alone.
///
/// # Errors
/// Weights errors: the folder is checked as strictly as any backbone.
pub(super) fn logits(folder: &Path, _name: &str, pixels: &Tensor) -> Result<Tensor> {
    let backbone = Backbone::load(&folder.to_string_lossy(), None)?;
    let vit = Vit::new(&backbone.spec, &backbone.params, &[])?;
    let head = backbone.outputs.linear(Layer::Head.weight())?;
    Ok(head.forward(&vit.features(pixels, Mode::Eval)?)?)
}
