//! transformers' format: `AutoModelForImageClassification.from_pretrained(FOLDER)`.
//!
//! A class of the library has one pooling and one set of layers; `hf_classes` says what each can express. The names of
//! tensors are those by which `crate::backbone` reads the same class, so there is one place for each. What no class can
//! express is written as a model of timm, which the library wraps.

use super::files::write_tensors;
use super::hf_classes::{CLASSES, HfClass};
use super::{ExportModel, Format, Layout, card, notes, readback, statistics, timm};
use crate::backbone::{FAMILIES, Header, Layer, ParamName, Role};
use crate::config::ResizeMode;
use crate::data::transform::{Geometry, Interpolation, Preprocess};
use crate::error::{Result, WeightsError};
use crate::system::json::write_json;
use candle_core::Tensor;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

/// transformers' format.
pub const FORMAT: Format = Format {
    name: "transformers",
    opened_by: "A folder for the auto classes of transformers",
    layout: Layout::Folder,
    obstacles,
    write,
    logits: readback::logits,
    checked_by: readback::BY,
};

/// What neither a class of the library nor timm can express.
fn obstacles(model: &ExportModel) -> Vec<String> {
    let additions = model.additions();
    let (class, obstacles) = nearest(model);
    if !additions.is_empty() || obstacles.is_empty() {
        return additions;
    }
    match timm::lacking(model) {
        timm if timm.is_empty() => timm,
        timm => vec![
            format!("{} (nearest: {})", obstacles.join(", nor "), class.name),
            format!("{} (as a model of timm)", timm.join(", nor ")),
        ],
    }
}

fn write(model: &ExportModel, folder: &Path, _name: &str) -> Result<Vec<String>> {
    let (class, obstacles) = nearest(model);
    if !obstacles.is_empty() {
        return write_wrapped(model, folder);
    }
    let mut notes = notes(&model.preprocess);
    notes.extend(limits(&model.preprocess.geometry).map(str::to_owned));
    let mut adapted = model.clone();
    (class.adapt)(&mut adapted)?;
    let config = config(class, &adapted);
    write_tensors(folder, &tensors(class, &adapted, &config, folder)?)?;
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("preprocessor_config.json"), &preprocessor(&model.preprocess))?;
    let usage = format!(
        "```python\nfrom transformers import AutoImageProcessor, AutoModelForImageClassification\n\
             model = AutoModelForImageClassification.from_pretrained(\"{place}\")\n\
             # Pillow's resize gives the pixels of `vitadapt predict`: the default backend differs by some thousandths of a\n\
             # probability, and transformers 4 says use_fast=False. Images with an orientation in EXIF: ImageOps.exif_transpose\n\
             processor = AutoImageProcessor.from_pretrained(\"{place}\", backend=\"pil\")\n```",
        place = card::PLACE
    );
    card::write(folder, model, &usage, &notes)?;
    Ok(notes)
}

/// Writes the model as one of timm. A folder of timm is one of transformers too, which reads it by its `TimmWrapper`.
fn write_wrapped(model: &ExportModel, folder: &Path) -> Result<Vec<String>> {
    let usage = format!(
        "```python\nfrom transformers import AutoImageProcessor, AutoModelForImageClassification\n\
             # Both need the package timm.\n\
             model = AutoModelForImageClassification.from_pretrained(\"{place}\")\n\
             processor = AutoImageProcessor.from_pretrained(\"{place}\")\n```",
        place = card::PLACE
    );
    let mut notes = timm::write_as(model, folder, &usage)?;
    notes.push(
        "no class of transformers computes this model: TimmWrapperForImageClassification opens it, and needs the package timm"
            .into(),
    );
    Ok(notes)
}

/// The class that can express the model, or the one that lacks least, and what it lacks; of several the one that the
/// backbone came from, else the plainest.
fn nearest(model: &ExportModel) -> (&'static HfClass, Vec<String>) {
    let ranked = |class: &'static HfClass| (class, (class.obstacles)(&model.spec));
    CLASSES[1..].iter().map(ranked).fold(ranked(&CLASSES[0]), |best, next| {
        let rank = |(class, obstacles): &(&HfClass, Vec<String>)| {
            (Reverse(obstacles.len()), class.likeness(&model.spec.architecture))
        };
        if rank(&next) > rank(&best) { next } else { best }
    })
}

fn config(class: &HfClass, model: &ExportModel) -> Value {
    let labels: Map<String, Value> =
        model.classes.iter().enumerate().map(|(index, class)| (index.to_string(), json!(class))).collect();
    let indices: Map<String, Value> =
        model.classes.iter().enumerate().map(|(index, class)| (class.clone(), json!(index))).collect();
    let mut config = json!({
        "architectures": [class.name],
        "model_type": class.kind,
        "problem_type": "single_label_classification",
        "id2label": labels,
        "label2id": indices,
        "dtype": "float32",
    });
    if let (Some(config), Value::Object(own)) = (config.as_object_mut(), (class.config)(&model.spec)) {
        config.extend(own);
    }
    config
}

/// The tensors by the names of the class.
fn tensors(class: &HfClass, model: &ExportModel, config: &Value, folder: &Path) -> Result<BTreeMap<String, Tensor>> {
    let family = FAMILIES.iter().find(|family| (family.recognises)(config));
    let family = family.ok_or_else(|| WeightsError::invalid(folder, format!("no family reads {}", class.kind)))?;
    // Which of several spellings the family uses depends on what it finds in the file.
    let header: Header = class.seeds(&model.spec).into_iter().map(|name| (name, Vec::new())).collect();
    let mut tensors = class.unused(model.spec.width)?;
    let mut add = |name: ParamName, tensor: &Tensor| -> Result<()> {
        let mapping = (family.mapping)(name, &header);
        tensors.extend(mapping.names().iter().cloned().zip(mapping.disassemble(tensor)?));
        Ok(())
    };
    for (name, param) in model.params.iter() {
        let Ok(name) = name.parse::<ParamName>() else { continue };
        add(name, param.tensor())?;
        if class.two_heads() && name.role() == Role::Head {
            add(Layer::HeadDist.part(name.part), param.tensor())?;
        }
    }
    Ok(tensors)
}

/// What no image processor of the library does as the model was trained.
fn limits(geometry: &Geometry) -> Option<&'static str> {
    match geometry.resize {
        ResizeMode::Squash => None,
        ResizeMode::Letterbox => Some(
            "no image processor of transformers pads as preprocess.resize = \"letterbox\" does: preprocessor_config.json \
             squashes, so pad images before",
        ),
        ResizeMode::Crop if geometry.image_size.side().is_none() => Some(
            "no image processor of transformers fills an input that is not square as preprocess.resize = \"crop\" does: \
             preprocessor_config.json squashes, so crop images before",
        ),
        ResizeMode::Crop => Some(
            "where a resized image is 3, 7, 11, ... pixels longer than its centre crop, transformers crops one pixel earlier \
             than timm and this model do: its probabilities for such an image differ",
        ),
    }
}

fn preprocessor(preprocess: &Preprocess) -> Value {
    let Geometry { image_size, resize, interpolation, .. } = preprocess.geometry;
    let [mean, std] = statistics(&preprocess.normalization);
    let size = json!({ "height": image_size.height, "width": image_size.width });
    let mut settings = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": size,
        // Pillow's numbers.
        "resample": match interpolation {
            Interpolation::Bilinear => 2,
            Interpolation::Bicubic => 3,
        },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": mean,
        "image_std": std,
        "do_convert_rgb": true,
    });
    if let (ResizeMode::Crop, Some(side)) = (resize, image_size.side()) {
        settings["image_processor_type"] = json!("CLIPImageProcessor");
        // A whole number also in its type: transformers resizes to no float.
        settings["size"] = json!({ "shortest_edge": (side as f64 / preprocess.geometry.crop_pct()).floor() as u64 });
        settings["do_center_crop"] = json!(true);
        settings["crop_size"] = size;
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::transform::Normalization;

    #[test]
    fn sides_are_whole_numbers() {
        let geometry = Geometry {
            image_size: 224.into(),
            resize: ResizeMode::Crop,
            interpolation: Interpolation::Bicubic,
            crop_pct: 0.9,
        };
        let written = preprocessor(&Preprocess { geometry, normalization: Normalization::Batch, tiles: None });
        assert_eq!(written["size"], json!({ "shortest_edge": 248 }));
        assert_eq!(written["crop_size"], json!({ "height": 224, "width": 224 }));
    }
}
