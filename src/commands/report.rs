//! `vitadapt report`: the page about a run, which the commands that make a run leave too.

use crate::backbone::Segment;
use crate::error::{Error, Result};
use crate::experiment::page::PageInputs;
use crate::experiment::saved::SavedRun;
use crate::report::{Console, key_value_table};
use crate::system::shown::{Shown, are, part_of};
use clap::Args;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run directory
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Show so many mistakes at the most instead of the run's own report.mistakes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    mistakes: Option<u8>,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long)]
    device: Option<String>,
}

/// Writes the page again.
///
/// # Errors
/// As [`SavedRun::open`]; data errors when the list of images is gone, or an image has changed; an I/O error when the page cannot be written.
pub fn run(args: &ReportArgs, console: &Console) -> Result<()> {
    let run = SavedRun::open(&args.run, args.device.as_deref(), Segment::Embed, &[], console)?;
    let dataset = run.dataset().or_else(|error| {
        let Error::Data(_) = &error else { return Err(error) };
        let dataset = run.listed()?;
        let gone = dataset.samples.iter().filter(|sample| !sample.path.is_file()).count();
        if gone == 0 {
            return Err(error);
        }
        let images = part_of(gone, dataset.samples.len(), "image");
        console.warn(format!("{images} of the run {} gone: the page is made without their pictures", are(gone)));
        Ok(dataset)
    })?;
    let pipeline = run.pipeline();
    let page = PageInputs::of_run(&run, &dataset, &pipeline);
    let mistakes = args.mistakes.map_or(run.session.settings.report.mistakes, usize::from);
    let path = page.write(mistakes, console)?;
    let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
    let result = json!({"run": args.run, "report": path, "bytes": bytes});
    console.output(&result, || {
        key_value_table(&[("report", path.shown()), ("size", format!("{} kB", bytes.div_ceil(1000)))])
    })
}
