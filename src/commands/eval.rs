//! `vitadapt eval`: scores a run on one of its splits or on another folder, and gates on the result.

use super::score::{evaluate_scored, score, write_evaluations};
use super::session::{Session, load_saved};
use crate::config::{self, DataSource, Settings};
use crate::data::transform::Pipeline;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::metrics::Gates;
use crate::report::{Console, RunRecord, confusion_table, evaluation_table, no_checkpoint};
use crate::train::checkpoint::Checkpoints;
use crate::train::feed::Feed;
use crate::train::progress::Progress;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The run directory, as finetune printed it
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The split to score
    #[arg(long, value_enum, default_value = "test", conflicts_with = "data")]
    split: SplitArg,
    /// Score the class folders of another folder instead
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitArg {
    Train,
    Val,
    Test,
}

/// Thresholds for CI: exit code 8 when one is missed.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Quality gates (exit code 8 when missed)")]
struct GateArgs {
    /// Lowest accuracy, from 0 to 1
    #[arg(long, value_name = "X", value_parser = fraction)]
    min_accuracy: Option<f64>,
    /// Lowest mean of the recalls
    #[arg(long, value_name = "X", value_parser = fraction)]
    min_balanced_accuracy: Option<f64>,
    /// Lowest unweighted mean of the F1 scores
    #[arg(long, value_name = "X", value_parser = fraction)]
    min_macro_f1: Option<f64>,
    /// Lowest recall of any class
    #[arg(long, value_name = "X", value_parser = fraction)]
    min_class_recall: Option<f64>,
    /// Lowest mean one-vs-rest area under the ROC curve
    #[arg(long, value_name = "X", value_parser = fraction)]
    min_auroc: Option<f64>,
    /// Lowest Matthews correlation, from -1 to 1
    #[arg(long, value_name = "X", value_parser = correlation, allow_negative_numbers = true)]
    min_mcc: Option<f64>,
    /// Highest negative log-likelihood in nats
    #[arg(long, value_name = "X", value_parser = non_negative)]
    max_nll: Option<f64>,
    /// Highest expected calibration error
    #[arg(long, value_name = "X", value_parser = fraction)]
    max_ece: Option<f64>,
}

fn within(text: &str, low: f64, high: f64) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (low..=high).contains(&value) { Ok(value) } else { Err(format!("{value} is not between {low} and {high}")) }
}

fn fraction(text: &str) -> std::result::Result<f64, String> {
    within(text, 0.0, 1.0)
}

fn correlation(text: &str) -> std::result::Result<f64, String> {
    within(text, -1.0, 1.0)
}

fn non_negative(text: &str) -> std::result::Result<f64, String> {
    within(text, 0.0, f64::MAX)
}

impl From<GateArgs> for Gates {
    fn from(args: GateArgs) -> Self {
        Self {
            min_accuracy: args.min_accuracy,
            min_balanced_accuracy: args.min_balanced_accuracy,
            min_macro_f1: args.min_macro_f1,
            min_class_recall: args.min_class_recall,
            min_auroc: args.min_auroc,
            min_mcc: args.min_mcc,
            max_nll: args.max_nll,
            max_ece: args.max_ece,
        }
    }
}

/// Scores and gates.
///
/// # Errors
/// [`Error::Gate`] when a threshold is missed, after the results were printed.
pub fn run(args: &EvalArgs, console: &Console) -> Result<()> {
    let record = RunRecord::read(&args.run)?;
    let mut settings = config::load(Some(&args.run.join("config.toml")), &[])?;
    if let Some(device) = &args.device {
        settings.run.device =
            device.parse().map_err(|expected: &str| Error::usage_hint(format!("--device {device}"), expected))?;
    }
    let saved = Checkpoints::of_run(&args.run).load::<Progress>("best")?.ok_or_else(|| no_checkpoint(&args.run))?;
    let dataset = dataset(args, &settings, &record)?;
    let mut session = Session::open(settings, console)?;
    if session.backbone.sha256 != record.backbone.sha256 {
        return Err(Error::usage_hint(
            format!("the weights of {} are not those that the run was trained with", record.backbone.name),
            format!("their SHA-256 must be {}", record.backbone.sha256),
        ));
    }
    let plan = session.plan(record.classes.len())?;
    let trainer = session.trainer(record.classes.len(), &plan)?;
    load_saved(&trainer, &saved.params, &args.run)?;
    let pipeline = Arc::new(Pipeline::evaluation(record.preprocess, session.decode()));
    let feed = Feed {
        dataset: Arc::new(dataset),
        training: Arc::clone(&pipeline),
        evaluation: pipeline,
        seed: 0,
        batch_size: session.settings.train.batch_size,
        threads: session.decode_threads(),
    };
    let split = args.split();
    let scored = score(&feed, &trainer, split, console)?;
    let evaluation = evaluate_scored(args.name(), &feed, &scored, &record.classes, record.temperature)?;
    if args.data.is_none() {
        write_evaluations(&args.run, std::slice::from_ref(&evaluation))?;
    }
    console.output(&evaluation, || format!("{}\n\n{}", evaluation_table(&evaluation), confusion_table(&evaluation)))?;
    let missed = Gates::from(args.gates).check(&evaluation);
    if missed.is_empty() { Ok(()) } else { Err(Error::Gate(missed)) }
}

impl EvalArgs {
    /// The split scored; another folder counts as test images.
    fn split(&self) -> Split {
        match (self.data.is_some(), self.split) {
            (true, _) | (_, SplitArg::Test) => Split::Test,
            (_, SplitArg::Train) => Split::Train,
            (_, SplitArg::Val) => Split::Val,
        }
    }

    fn name(&self) -> &'static str {
        if self.data.is_some() { "data" } else { self.split().name() }
    }
}

/// The samples to score: those of the run's own splits, or of another folder.
fn dataset(args: &EvalArgs, settings: &Settings, record: &RunRecord) -> Result<Dataset> {
    if let Some(folder) = &args.data {
        let samples = Dataset::from_folder_as(folder, &record.classes, Split::Test)?;
        return Ok(Dataset { classes: record.classes.clone(), samples, warnings: Vec::new(), ignored_files: 0 });
    }
    let root = match &settings.data.source {
        DataSource::Root(root) => root.as_path(),
        DataSource::Manifest(manifest) => manifest.parent().unwrap_or(Path::new(".")),
    };
    let dataset = Dataset::from_splits_csv(&args.run.join("splits.csv"), root)?;
    if dataset.indices(args.split()).is_empty() {
        return Err(Error::usage_hint(
            format!("the run has no {} images", args.split().name()),
            "choose another --split, or give a folder with --data",
        ));
    }
    Ok(dataset)
}
