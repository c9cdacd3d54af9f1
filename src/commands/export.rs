//! `vitadapt export`: a run's model in the format of another library, checked before it is published.

use crate::backbone::Segment;
use crate::config::ProbeMethod;
use crate::data::loader::Batch;
use crate::data::transform::View;
use crate::data::{Dataset, Split};
use crate::error::{DataError, Error, Result};
use crate::experiment::saved::SavedRun;
use crate::experiment::tiles::refuse_tiles;
use crate::export::{Check, ExportModel, FORMATS, check_target, export};
use crate::report::{Console, RunRecord, key_value_table};
use crate::system::shown::Shown;
use candle_core::{Device, Tensor};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use serde_json::json;
use std::path::PathBuf;

/// Images on which the export is compared with the model.
const IMAGES: usize = 16;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The run directory
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The library that will open it
    #[arg(long, value_parser = names())]
    format: String,
    /// The folder to write, or the .onnx file
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long)]
    device: Option<String>,
}

/// The formats of the registry, for the command line.
fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.opened_by)))
}

/// Exports.
///
/// # Errors
/// A usage error when the target is taken or the format cannot express the model, a weights error when what was written
/// gives other logits.
pub fn run(args: &ExportArgs, console: &Console) -> Result<()> {
    let format = FORMATS.into_iter().find(|format| format.name == args.format);
    let format = format.ok_or_else(|| Error::usage(format!("there is no format {}", args.format)))?;
    // Before the model is loaded, not after.
    check_target(format, &args.out)?;
    let record = RunRecord::read(&args.run)?;
    refuse_votes(&record)?;
    refuse_tiles(&record.preprocess, "no format has a layer that cuts images and pools their tiles")?;
    let run = SavedRun::open(&args.run, args.device.as_deref(), Segment::Embed, &[], console)?;
    let (check, gone) = match check(&run) {
        Ok(check) => (check, None),
        Err(Error::Data(reason)) => (patterns(&run)?, Some(reason)),
        Err(error) => return Err(error),
    };
    let count = check.pixels.dim(0)?;
    let images = if gone.is_some() { 0 } else { count };
    let model = model(&run)?;
    let mut exported = export(format, &model, &check, &args.out)?;
    if let Some(reason) = gone {
        let first = reason.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
        let note = format!("not checked on images, which cannot be read ({first}), but on {count} made-up patterns");
        console.warn(&note);
        exported.notes.push(note);
    }
    let result = json!({
        "run": args.run,
        "format": format.name,
        "out": args.out,
        "files": exported.files,
        "bytes": exported.bytes,
        "checked_images": images,
        "checked_by": exported.checked_by,
        "max_abs_diff": exported.max_abs_diff,
        "max_rel_diff": exported.max_rel_diff,
        "max_probability_diff": exported.max_probability_diff,
        "notes": exported.notes,
    });
    console.output(&result, || {
        let files: Vec<String> = exported.files.iter().map(Shown::shown).collect();
        let mut rows = vec![
            ("format", format.name.to_owned()),
            ("files", files.join(", ")),
            ("size", format!("{:.1} MB", exported.bytes as f64 / 1e6)),
            (
                "largest difference",
                format!(
                    "{:.1e} of a logit ({:.1e} of the largest), {:.1e} of a probability",
                    exported.max_abs_diff, exported.max_rel_diff, exported.max_probability_diff
                ),
            ),
            (
                "checked on",
                format!("{count} {} by {}", if images > 0 { "images" } else { "patterns" }, exported.checked_by),
            ),
        ];
        rows.extend(exported.notes.iter().map(|note| ("note", note.clone())));
        key_value_table(&rows)
    })
}

/// Where images vote, instead of a head or beside it, there is nothing that a format has a layer for.
fn refuse_votes(record: &RunRecord) -> Result<()> {
    let Some(probe) = &record.probe else { return Ok(()) };
    let what = match (probe.knn(), probe.method) {
        (Some(knn), _) => format!("a kNN probe: {} of its training images vote", knn.k),
        (None, ProbeMethod::Patchcore) => "a patchcore: patches are compared with those of sound parts".to_owned(),
        (None, ProbeMethod::Tip) => "a Tip-Adapter: all its training images vote".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::usage_hint(
        format!("the run is {what}, and no format has a layer for that"),
        "export a run of finetune, or of a probe with probe.method = \"logistic\" or \"svm\"",
    ))
}

fn model(run: &SavedRun) -> Result<ExportModel> {
    let (record, session) = (&run.record, &run.session);
    let name = run.folder.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let model = ExportModel {
        name,
        spec: session.backbone.spec.clone(),
        params: run.model.params.detached().to_device(&Device::Cpu)?,
        readout: run.readout(),
        classes: record.classes.clone(),
        preprocess: record.preprocess,
        bit_depth: session.settings.data.bit_depth,
        temperature: record.temperature,
        backbone: record.backbone.name.clone(),
    };
    Ok(model.with_plain_pooling())
}

/// Some of the run's own images, and what its model makes of them.
fn check(run: &SavedRun) -> Result<Check> {
    let dataset = run.dataset()?;
    let samples = samples(&dataset);
    let (pipeline, side) = (run.pipeline(), run.session.backbone.spec.image_size);
    let mut batch = Batch { labels: vec![0; samples.len()], indices: samples.clone(), ..Batch::default() };
    for &sample in &samples {
        let path = &dataset.samples[sample].path;
        batch.inputs.extend(pipeline.load_once(path, View::PLAIN).map_err(|error| DataError::bad_file(path, error))?);
    }
    pipeline.finish(&mut batch.inputs, &vec![View::PLAIN; samples.len()]);
    let logits = run.model.run(&batch)?.logits;
    let pixels = Tensor::from_vec(batch.inputs, (samples.len(), 3, side, side), &Device::Cpu)?;
    Ok(Check { pixels, logits })
}

/// Waves in place of images, for a run whose images are no longer there: any input tells whether the files compute what
/// the model does.
fn patterns(run: &SavedRun) -> Result<Check> {
    const COUNT: usize = 4;
    let side = run.session.backbone.spec.image_size;
    let values = 3 * side * side;
    let wave = |at: usize| {
        let (pattern, place) = (at / values, at % values);
        1.5 * (place as f32 * (0.011 + 0.007 * pattern as f32)).sin()
    };
    let inputs: Vec<f32> = (0..COUNT * values).map(wave).collect();
    let batch = Batch { inputs, labels: vec![0; COUNT], indices: (0..COUNT).collect(), ..Batch::default() };
    let logits = run.model.run(&batch)?.logits;
    let pixels = Tensor::from_vec(batch.inputs, (COUNT, 3, side, side), &Device::Cpu)?;
    Ok(Check { pixels, logits })
}

/// Evenly spread over the test images, or over the training images when there are none: samples are sorted by class.
fn samples(dataset: &Dataset) -> Vec<usize> {
    let test = dataset.indices(Split::Test);
    let all = if test.is_empty() { dataset.indices(Split::Train) } else { test };
    let step = all.len().div_ceil(IMAGES).max(1);
    all.into_iter().step_by(step).collect()
}
