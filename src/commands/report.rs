//! `vitadapt report`: the page about a run, which the commands that make a run leave too.

mod mistakes;

use super::saved::{self, SavedRun};
use super::score::read_evaluation;
use super::session::Session;
use crate::backbone::{Params, Readout, Stage};
use crate::data::transform::Pipeline;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::metrics::Evaluation;
use crate::report::html::{RunPage, save_run_page};
use crate::report::{Console, RunRecord, key_value_table, read_epochs, read_json};
use clap::Args;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

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
/// As [`SavedRun::open`]; data errors when the list of images is gone; an I/O error when the page cannot be written.
pub fn run(args: &ReportArgs, console: &Console) -> Result<()> {
    let run = SavedRun::open(&args.run, args.device.as_deref(), Stage::Pixels, &[], console)?;
    let dataset = run.dataset()?;
    let pipeline = run.pipeline();
    let subject = Subject::of_run(&run, &dataset, &pipeline);
    let mistakes = args.mistakes.map_or(run.session.settings.report.mistakes, usize::from);
    let path = subject.write(mistakes, console)?;
    let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
    let result = json!({"run": args.run, "report": path, "bytes": bytes});
    console.output(&result, || {
        let size = format!("{} kB", bytes.div_ceil(1000));
        key_value_table(&[("report", path.display().to_string()), ("size", size)])
    })
}

/// A finished run, of which a page is made.
pub struct Subject<'a> {
    /// Its directory.
    pub folder: &'a Path,
    /// Its settings on a device.
    pub session: &'a Session,
    /// Its `run.json`.
    pub record: &'a RunRecord,
    /// The parameters of its model.
    pub params: &'a Params,
    /// The features that its head reads.
    pub readout: Readout,
    /// Its images.
    pub dataset: &'a Dataset,
    /// From file to pixels, without randomness.
    pub pipeline: &'a Pipeline,
}

impl<'a> Subject<'a> {
    /// A run that was opened again.
    pub fn of_run(run: &'a SavedRun, dataset: &'a Dataset, pipeline: &'a Pipeline) -> Self {
        Self {
            folder: &run.folder,
            session: &run.session,
            record: &run.record,
            params: &run.trainer.params,
            readout: saved::readout(&run.record),
            dataset,
            pipeline,
        }
    }

    /// Writes the page if the settings want one. What goes wrong is a warning: a run is never lost for its page.
    pub fn leave_page(&self, console: &Console) {
        let settings = &self.session.settings.report;
        if !settings.html {
            return;
        }
        match self.write(settings.mistakes, console) {
            Ok(path) => console.info(format!("report    {}", path.display())),
            Err(error) => console.warn(format!("report.html could not be written: {error}")),
        }
    }

    /// Writes `report.html` with so many mistakes at the most.
    fn write(&self, mistakes: usize, console: &Console) -> Result<PathBuf> {
        let evaluations: Vec<Evaluation> = [Split::Test, Split::Val, Split::Train]
            .into_iter()
            .filter_map(|split| read_evaluation(self.folder, split))
            .collect();
        let config = self.folder.join("config.toml");
        let counts = |split: Split| (split.name().to_owned(), self.dataset.class_counts(split));
        let robustness = |split| read_json(&self.folder.join(format!("robustness-{split}.json")));
        let page = RunPage {
            name: self.session.settings.run.name.clone(),
            record: self.record.clone(),
            config: fs::read_to_string(&config).map_err(Error::io("read", &config))?,
            settings: self.session.settings.clone(),
            epochs: read_epochs(self.folder),
            mistakes: evaluations.first().and_then(|main| self.mistakes(&main.split, mistakes, console)),
            evaluations,
            counts: Split::ALL.into_iter().map(counts).filter(|(_, counts)| counts.iter().any(|&n| n > 0)).collect(),
            skipped: skipped(self.folder),
            robustness: [Split::Test, Split::Val, Split::Train].into_iter().filter_map(robustness).collect(),
        };
        let path = self.folder.join("report.html");
        save_run_page(&path, &page)?;
        Ok(path)
    }
}

/// How many files a run left out.
fn skipped(folder: &Path) -> usize {
    let reader = csv::Reader::from_path(folder.join("skipped.csv"));
    reader.map_or(0, |mut reader| reader.records().count())
}
