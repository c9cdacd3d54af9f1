//! The command line: what there is to type, and one file for each command, which only composes the other modules.

mod check;
mod compare;
mod config_args;
mod corrupt;
mod eval;
mod export;
mod extract;
mod finetune;
mod gates;
mod init;
mod predict;
mod probe;
mod report;
mod runs;
mod schema;
mod shell;
mod tsne;
mod zeroshot;

#[cfg(test)]
mod documentation_tests;

use crate::error::{Error, ExitCode, Result};
use crate::experiment::record::Completed;
use crate::metrics::Doubt;
use crate::report::{Console, RunResult, Verbosity, doubts_first, inspection_first, recall_table};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use config_args::{CONFIG, ConfigArgs, RunArgs};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Adapts a pretrained vision transformer to a small set of labelled images.
#[derive(Debug, Parser)]
#[command(name = "vitadapt", version, max_term_width = 100)]
#[command(after_help = "Results go to stdout, progress to stderr.\n\
Exit codes: 0 done, 1 unexpected, 2 usage or config, 3 data, 4 weights, 5 I/O or hub,\n\
6 numerics, 7 run directory in use, 8 a quality gate failed, 130 SIGINT, 143 SIGTERM.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

/// What every command understands.
#[derive(Debug, Clone, Copy, Args)]
struct OutputArgs {
    /// Print one JSON object to stdout instead of a table
    #[arg(long, global = true)]
    json: bool,
    /// Say more on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say only warnings and errors on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    quiet: u8,
}

/// The commands. A new one is a file with its arguments and `run`, and one line here and in [`dispatch`].
#[derive(Debug, Subcommand)]
enum Command {
    /// Look at images and write a first configuration for them
    #[command(
        after_help = "Examples:\n  vitadapt init data/textile\n  vitadapt init images.csv --out configs/first.toml"
    )]
    Init(init::InitArgs),
    /// Run the ladder of strategies on the same images, and say which one is worth it
    #[command(after_help = "Examples:\n  vitadapt compare --config configs/compare.toml --seeds 3\n  \
                            vitadapt compare --runs runs/first runs/second --out runs")]
    Compare(compare::CompareArgs),
    /// Audit the machine, the images and the labels before anything is trained
    #[command(after_help = "Example:\n  vitadapt check --config configs/quickstart.toml --augment-sheet augmented.png")]
    Check(check::CheckArgs),
    /// Train by the strategy of a config, then score the best epoch
    #[command(after_help = "Examples:\n  vitadapt finetune --config configs/quickstart.toml --name other\n  \
                            vitadapt finetune --data data/textile")]
    Finetune(finetune::FinetuneArgs),
    /// Fit a simple classifier on frozen features: far quicker than training, and a score for training to beat
    #[command(after_help = "Example:\n  vitadapt probe --config configs/quickstart.toml --name probe")]
    Probe(probe::ProbeArgs),
    /// Compare images with prompts for the classes by a CLIP or `SigLIP` model, without training
    #[command(after_help = "Example:\n  vitadapt zeroshot --data data/textile --backbone openai/clip-vit-base-patch32")]
    Zeroshot(zeroshot::ZeroshotArgs),
    /// List the runs in a folder: what they are, how they came out, how much room they take
    #[command(after_help = "Example:\n  vitadapt runs runs")]
    Runs(runs::RunsArgs),
    /// Score a run on a split or on another folder
    #[command(after_help = "Example:\n  vitadapt eval --run runs/quickstart --split val --min-accuracy 0.5")]
    Eval(eval::EvalArgs),
    /// Write the page about a run again, report.html in its directory
    #[command(after_help = "Example:\n  vitadapt report --run runs/quickstart --mistakes 30")]
    Report(report::ReportArgs),
    /// Label new images, with calibrated probabilities
    #[command(after_help = "Example:\n  vitadapt predict --run runs/quickstart --top 1 data/textile/test/local")]
    Predict(predict::PredictArgs),
    /// Write the model for timm, transformers or ONNX, with its preprocessing
    #[command(after_help = "Example:\n  vitadapt export --run runs/quickstart --format onnx --out fabric.onnx")]
    Export(export::ExportArgs),
    /// Write features to .safetensors or .npy
    #[command(after_help = "Example:\n  vitadapt extract --run runs/quickstart --out features.npy")]
    Extract(extract::ExtractArgs),
    /// Map features in two dimensions: pictures, coordinates, a page to look at images
    #[command(after_help = "Example:\n  vitadapt tsne --run runs/quickstart")]
    Tsne(tsne::TsneArgs),
    /// Print a script that completes commands and options, for a shell to load
    #[command(after_help = "Example:\n  vitadapt completions bash")]
    Completions(shell::CompletionsArgs),
    /// Write man pages into a folder
    #[command(hide = true)]
    Man(shell::ManArgs),
    /// Print the JSON schema of the config file
    #[command(hide = true)]
    Schema,
}

fn dispatch(command: Command, console: &Console) -> Result<()> {
    match command {
        Command::Init(args) => init::run(&args, console),
        Command::Compare(args) => compare::run(&args, console),
        Command::Check(args) => check::run(&args, console),
        Command::Finetune(args) => finetune::run(&args, console),
        Command::Probe(args) => probe::run(&args, console),
        Command::Zeroshot(args) => zeroshot::run(&args, console),
        Command::Runs(args) => runs::run(&args, console),
        Command::Eval(args) => eval::run(&args, console),
        Command::Report(args) => report::run(&args, console),
        Command::Predict(args) => predict::run(&args, console),
        Command::Export(args) => export::run(&args, console),
        Command::Extract(args) => extract::run(&args, console),
        Command::Tsne(args) => tsne::run(&args, console),
        Command::Completions(args) => shell::completions(&args, console),
        Command::Man(args) => shell::man(&args, console),
        Command::Schema => schema::run(console),
    }
}

/// The result of a run, and for people what it does to parts and, after a training run, how each class fared.
fn print_completed(completed: &Completed, console: &Console) -> Result<()> {
    let Completed { result, evaluation, doubts, .. } = completed;
    console.output(&CompletedOutput { result, doubts }, || {
        let tables = match (result, evaluation) {
            (RunResult::Finetune(_), Some(evaluation)) => {
                format!("{}\n\n{}", result.table(), recall_table(evaluation))
            }
            _ => result.table(),
        };
        doubts_first(doubts, inspection_first(evaluation.as_ref(), tables))
    })
}

/// What a command that makes a run prints with `--json`.
#[derive(Serialize)]
struct CompletedOutput<'a> {
    #[serde(flatten)]
    result: &'a RunResult,
    doubts: &'a [Doubt],
}

/// One of the words that a type of the configuration or of run.json is written as.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &[&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value(word.into()))
}

/// Runs the command line of this process and reports a failure on stderr.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap chooses the stream: help and version go to stdout, mistakes to stderr. A closed pipe is not a failure.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
        }
    };
    let verbosity = Verbosity::from_flags(cli.output.verbose, cli.output.quiet);
    let console = Console::new(verbosity, cli.output.json);
    // The panic message itself has been printed by then; only the exit code is left to decide.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dispatch(cli.command, &console)));
    for refused in crate::kernels::refused() {
        console.warn(refused);
    }
    match outcome {
        Ok(Ok(())) => ExitCode::Done,
        Ok(Err(error)) => {
            complain(&error, &console);
            error.exit_code()
        }
        Err(_) => ExitCode::Unexpected,
    }
}

/// The message, its causes, then a blank line and the hint.
fn complain(error: &Error, console: &Console) {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut text = causes.fold(error.to_string(), |text, cause| format!("{text}\n  caused by: {cause}"));
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    console.error(&text);
}
