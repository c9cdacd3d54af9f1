//! `vitadapt export`: a run's model in the format of another library, checked before it is published.

use crate::backbone::Segment;
use crate::config::ProbeMethod;
use crate::error::{Error, Result};
use crate::experiment::exporting;
use crate::experiment::saved::SavedRun;
use crate::export::{FORMATS, check_target, export};
use crate::report::{Console, RunRecord, key_value_table};
use crate::system::shown::{Shown, counted};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use serde_json::json;
use std::path::PathBuf;

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
    let run = SavedRun::open(&args.run, args.device.as_deref(), Segment::Embed, &[], console)?;
    let (check, gone) = match exporting::of_images(&run) {
        Ok(check) => (check, None),
        Err(Error::Data(reason)) => (exporting::of_patterns(&run)?, Some(reason)),
        Err(error) => return Err(error),
    };
    let count = check.logits.len() / run.record.classes.len().max(1);
    let images = if gone.is_some() { 0 } else { count };
    let model = exporting::model(&run)?;
    let mut exported = export(format, &model, &check, &args.out)?;
    if let Some(reason) = gone {
        let first = reason.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
        let note = format!(
            "not checked on images, which cannot be read ({first}), but on {}",
            counted(count, "made-up pattern")
        );
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
                format!("{} by {}", counted(count, if images > 0 { "image" } else { "pattern" }), exported.checked_by),
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
    let message = format!("the run is {what}, and no format has a layer for that");
    let hint = "export a run of finetune, or of a probe with probe.method = \"logistic\" or \"svm\"";
    Err(Error::usage_hint(message, hint))
}
