//! `vitadapt check`: everything that would stop or spoil a training run, found before one begins.
//!
//! Each part of the check is one file that gives a [`Section`]; a part that fails is a problem among the others, so that
//! all are reported at once.

mod images;
mod labels;
mod machine;
mod plan;
mod twins;

use super::ConfigArgs;
use crate::backbone::{Backbone, VitSpec};
use crate::config::Settings;
use crate::data::{Dataset, Labels};
use crate::error::{DataError, Error, ExitCode, Result};
use crate::experiment::weights;
use crate::hub::Wanted;
use crate::metrics::good_classes;
use crate::report::{Console, junit};
use crate::system::shown::{agree, counted};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// List the images of a run whose labels their neighbours contradict, instead of auditing a config
    #[arg(long, value_name = "DIR", conflicts_with_all = super::CONFIG)]
    run: Option<PathBuf>,
    /// Compare images by the backbone's features too
    #[arg(long, conflicts_with = "run")]
    embeddings: bool,
    /// Draw what was found (duplicates, suspicious labels) to a PNG file
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Draw images as training sees them, several times augmented, to a PNG file
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    augment_sheet: Option<PathBuf>,
    /// Augmented copies of an image on that sheet
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=50))]
    copies: u64,
    /// Images of each class on that sheet
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=50))]
    per_class: u64,
    /// Write what was looked at as tests to a JUnit XML file, for the pages of CI systems
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    junit: Option<PathBuf>,
    /// Suspicious labels to list, the most certain first
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

/// One part of the report.
struct Section {
    /// Its title, and its key in the JSON with `_` for spaces.
    name: &'static str,
    /// The same as [`Self::json`], for people.
    text: String,
    json: Value,
}

impl Section {
    fn key(&self) -> String {
        self.name.replace(' ', "_")
    }
}

/// What was found so far.
#[derive(Default)]
struct Report {
    sections: Vec<Section>,
    /// What would stop a training run.
    problems: Vec<Error>,
    /// What may spoil it.
    warnings: Vec<String>,
    /// Images that look like others: for a person to judge.
    look_alikes: Vec<String>,
}

impl Report {
    /// Keeps the value, or notes why there is none.
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.problems.push(error)).ok()
    }

    /// For people; what is only worth a look is left out when it is to be `quiet`.
    fn text(&self, quiet: bool) -> String {
        let mut parts: Vec<String> =
            self.sections.iter().map(|section| format!("{}\n\n{}", section.name, section.text)).collect();
        let listed =
            |title: &str, lines: Vec<String>| (!lines.is_empty()).then(|| format!("{title}\n\n{}", lines.join("\n")));
        parts.extend(listed("warnings", self.warnings.clone()));
        parts.extend(listed("look at", if quiet { Vec::new() } else { self.look_alikes.clone() }));
        let with_hint = |error: &Error| {
            error.hint().map_or_else(|| message(error), |hint| format!("{}\n  hint: {hint}", message(error)))
        };
        parts.extend(listed("problems", self.problems.iter().map(with_hint).collect()));
        if self.problems.is_empty() {
            parts.push("nothing stops a training run".into());
        }
        parts.join("\n\n")
    }

    fn json(&self) -> Value {
        let mut object: Map<String, Value> =
            self.sections.iter().map(|section| (section.key(), section.json.clone())).collect();
        let problem = |error: &Error| json!({"message": message(error), "hint": error.hint(), "exit_code": error.exit_code() as i32});
        object.insert("warnings".into(), json!(self.warnings));
        object.insert("look_at".into(), json!(self.look_alikes));
        object.insert("problems".into(), self.problems.iter().map(problem).collect());
        object.insert("ok".into(), self.problems.is_empty().into());
        Value::Object(object)
    }

    /// Prints everything, then fails if a training run would. Problems of the data decide the exit code before others.
    fn finish(self, junit: Option<&Path>, console: &Console) -> Result<()> {
        if let Some(file) = junit {
            let problems = self.problems.iter().map(|error| (error.exit_code(), message(error)));
            junit::write(file, "check", &junit::of_problems(&problems.collect::<Vec<_>>()))?;
        }
        console.output(&self.json(), || self.text(console.is_quiet()))?;
        let count = self.problems.len();
        let first_of_data = self.problems.iter().position(|error| error.exit_code() == ExitCode::Data);
        let Some(first) = self.problems.into_iter().nth(first_of_data.unwrap_or(0)) else { return Ok(()) };
        if first_of_data.is_none() {
            return Err(first);
        }
        let what = format!("{} {}", counted(count, "problem"), agree(count, "stops", "stop"));
        Err(DataError::Invalid { message: format!("{what} a training run"), hint: None }.into())
    }
}

/// An error with its causes.
fn message(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Checks, lists, draws.
///
/// # Errors
/// A data error when the data would stop a training run; else the first other problem. All are printed before.
pub fn run(args: &CheckArgs, console: &Console) -> Result<()> {
    if let Some(run) = &args.run {
        return labels::run(run, args, console);
    }
    let (settings, junit) = (args.config.load()?, args.junit.as_deref());
    let mut report = Report::default();
    let machine = machine::section(&settings, &mut report);
    report.sections.push(machine);
    let spec = architecture(&settings, console);
    let spec = report.note(spec);
    let Some(dataset) = report.note(Dataset::open_as(&settings.data, Labels::of_probe(&settings))) else {
        return report.finish(junit, console);
    };
    report.note(good_classes(&settings.inspection.good, &dataset.classes));
    let (images, tiles) = images::check(&settings, spec.as_ref(), &dataset, args, &mut report, console)?;
    report.sections.extend(images);
    if let Some(spec) = &spec {
        let plan = plan::section(&settings, spec, (&dataset, tiles), &mut report, console);
        report.sections.extend(plan);
    }
    report.finish(junit, console)
}

/// The backbone's architecture for the config's image size; its weights are fetched if need be, but not loaded.
fn architecture(settings: &Settings, console: &Console) -> Result<VitSpec> {
    let backbone = weights::local(&settings.model.backbone, Wanted::Backbone, console)?;
    Backbone::describe(&backbone, &settings.model)
}
