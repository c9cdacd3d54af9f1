//! The model card: what a folder holds and how to use it.

use super::{ExportModel, statistics};
use crate::config::ResizeMode;
use crate::error::Result;
use crate::size::Size;
use crate::system::files::write_synced;
use std::path::Path;

/// Stands for the folder in the card.
pub(super) const PLACE: &str = "PATH/TO/THIS/FOLDER";

/// Writes `README.md`; `usage` is how the library opens the folder.
pub(super) fn write(folder: &Path, model: &ExportModel, usage: &str, notes: &[String]) -> Result<()> {
    let classes: String = model.classes.iter().enumerate().map(|(i, class)| format!("{i}. {class}\n")).collect();
    let notes: String = notes.iter().map(|note| format!("\nNote: {note}.\n")).collect();
    let text = format!(
        "# {}\n\nAn image classifier, adapted from {} with vitadapt {}.\n\n## Use\n{usage}\n\n## Input\n{}\n{notes}\n\
         ## Calibration\n{}\n\n## Classes\nIn the order of the logits, from 0:\n\n{classes}",
        model.name,
        model.backbone,
        env!("CARGO_PKG_VERSION"),
        input(model),
        calibration(model),
    );
    write_synced(&folder.join("README.md"), text.as_bytes())
}

fn input(model: &ExportModel) -> String {
    let Size { height, width } = model.spec.image_size;
    let shape = match model.preprocess.geometry.resize {
        ResizeMode::Squash => "squashed".to_owned(),
        ResizeMode::Letterbox => "scaled to fit and padded with the mean colour".to_owned(),
        ResizeMode::Crop => {
            format!("cut from the centre of the image at {} of its size", model.preprocess.geometry.crop_pct)
        }
    };
    let [mean, std] = statistics(&model.preprocess.normalization);
    format!(
        "RGB of {width} x {height} pixels (width x height), {shape}, in 0..1, less the mean {mean:?}, divided by {std:?}."
    )
}

/// What the softmax of the logits means.
pub(super) fn calibration(model: &ExportModel) -> String {
    match model.temperature {
        Some(temperature) => format!(
            "softmax(logits) gives calibrated probabilities: the temperature that was fitted, {temperature}, is in the head."
        ),
        None => "The run had no validation images: softmax(logits) is not calibrated.".to_owned(),
    }
}
