//! ONNX: one file that any runtime runs, with what it needs to know of its input as metadata and as JSON beside it.
//!
//! Reference: ONNX's `onnx.proto` and `Operators.md`. Operator set 17 and IR version 8 are what runtimes have read
//! since 2022.

mod activation;
mod builder;
mod graph;
mod pool;
mod proto;
mod run;

use super::publish::sidecar;
use super::{ExportModel, Format, Layout, card, notes, statistics};
use crate::backbone::VitSpec;
use crate::error::{Error, Result, WeightsError};
use crate::system::files::write_synced;
use crate::system::json::write_json;
use candle_core::Tensor;
use graph::{LOGITS, PIXELS, PROBABILITIES};
use prost::Message;
use proto::{
    Dimension, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use serde_json::{Value, json};
use std::path::Path;

/// ONNX.
pub const FORMAT: Format = Format {
    name: "onnx",
    opened_by: "One .onnx file with a .json beside it, for any runtime",
    layout: Layout::File("onnx"),
    obstacles: |model| {
        let looks_again = model.preprocess.tiles.is_some_and(|tiles| tiles.second_look > 0);
        looks_again
            .then(|| "preprocess.tiles.second_look, which picks tiles by what others show".to_owned())
            .into_iter()
            .collect()
    },
    write,
    logits,
    checked_by: "vitadapt's own evaluation of the file's nodes (not a run in onnxruntime)",
};

/// The name of the first dimension of the input: for whole images, and for tiles.
const BATCH: &str = "batch";
const TILES: &str = "tiles";

/// A protobuf message cannot be larger.
const LARGEST: usize = i32::MAX as usize;

fn write(model: &ExportModel, folder: &Path, name: &str) -> Result<Vec<String>> {
    let facts = facts(model);
    let mut graph = graph::of(model)?;
    let (size, classes) = (model.spec.image_size, model.classes.len());
    let tiled = model.preprocess.tiles.is_some();
    graph.input = vec![declared(PIXELS, any(if tiled { TILES } else { BATCH }), &size.shape())];
    let images = || if tiled { fixed(1) } else { any(BATCH) };
    graph.output = [LOGITS, PROBABILITIES].map(|name| declared(name, images(), &[classes])).into();
    let file = ModelProto {
        ir_version: Some(8),
        producer_name: Some("vitadapt".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        metadata_props: metadata(&facts),
    };
    let size = file.encoded_len();
    if size > LARGEST {
        let message = format!("the file would take {size} bytes, and an ONNX file can hold no more than {LARGEST}");
        return Err(Error::usage_hint(message, "use --format timm or --format transformers"));
    }
    let path = folder.join(name);
    write_synced(&path, &file.encode_to_vec())?;
    write_json(&sidecar(&path), &facts)?;
    let mut notes = notes(&model.preprocess);
    if tiled {
        notes.push(
            "the file takes all tiles of one image at a time: examples/predict_onnx.py shows how they are cut".into(),
        );
    }
    Ok(notes)
}

fn logits(folder: &Path, name: &str, pixels: &Tensor) -> Result<Tensor> {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let file = ModelProto::decode(bytes.as_slice())
        .map_err(|error| WeightsError::invalid(&path, format!("not a valid ONNX file ({error})")))?;
    let graph = file.graph.unwrap_or_default();
    Ok(run::output(graph, PIXELS, pixels, LOGITS)?)
}

/// A dimension that each call may choose: any number of images or tiles.
fn any(name: &str) -> Dimension {
    Dimension { dim_param: Some(name.into()), dim_value: None }
}

fn fixed(size: usize) -> Dimension {
    Dimension { dim_value: Some(size as i64), dim_param: None }
}

/// A tensor of f32.
fn declared(name: &str, first: Dimension, rest: &[usize]) -> ValueInfoProto {
    let dim = std::iter::once(first).chain(rest.iter().copied().map(fixed)).collect();
    let tensor = TensorTypeProto { elem_type: Some(proto::FLOAT), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

/// What a program that runs the file must know of it.
fn facts(model: &ExportModel) -> Value {
    let VitSpec { image_size, architecture, .. } = &model.spec;
    let geometry = &model.preprocess.geometry;
    let [mean, std] = statistics(&model.preprocess.normalization);
    let layout = "N, 3 (RGB), height, width; values in 0..1, less the mean, divided by std";
    let mut facts = json!({
        "name": model.name,
        "architecture": architecture,
        "backbone": model.backbone,
        "classes": model.classes,
        "calibration": card::calibration(model),
        "input": {
            "name": PIXELS,
            "layout": layout,
            "bit_depth": model.bit_depth,
            "image_size": image_size,
            "resize": geometry.resize,
            "interpolation": geometry.interpolation,
            "crop_pct": geometry.crop_pct(),
            "mean": mean,
            "std": std,
        },
        "outputs": [LOGITS, PROBABILITIES],
    });
    if let Some(tiles) = &model.preprocess.tiles {
        facts["input"]["layout"] = format!("the tiles of one image as {layout}").into();
        facts["input"]["tiles"] = json!({ "side": tiles.side, "overlap": tiles.overlap, "staggered": tiles.staggered });
    }
    facts
}

/// The facts as keys and values: text as it is, anything else as JSON.
fn metadata(facts: &Value) -> Vec<StringStringEntryProto> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entry =
        |(key, value): (&String, &Value)| StringStringEntryProto { key: Some(key.clone()), value: Some(text(value)) };
    facts.as_object().into_iter().flatten().map(entry).collect()
}
