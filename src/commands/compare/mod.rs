//! `vitadapt compare`: the ladder of strategies on the same images, as ordinary runs, and which one is worth it.

mod gather;
mod runs;

use super::{RunArgs, config_args};
use crate::backbone::{Backbone, TextTower};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::experiment::runs::{named_after, side_by_side};
use crate::experiment::weights;
use crate::hub::Wanted;
use crate::ladder::{Ladder, PlannedRun, Rung, commonest_provenance};
use crate::report::{Comparison, Console, Question, Repeats};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    config: RunArgs,
    /// Strategies instead of the usual ones: zeroshot, knn, probe, frozen, prompt, partial, lora, full
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    strategies: Vec<String>,
    /// Runs of each strategy, with `run.seed` and the seeds after it, on one split
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Cross-validation instead: all images are dealt into so many folds, and each image is tested on once
    #[arg(long, value_name = "K", conflicts_with = "seeds", value_parser = clap::value_parser!(u64).range(2..=1000))]
    folds: Option<u64>,
    /// The score you need, from 0 to 1, instead of `probe.target`: accuracy, or balanced accuracy where the runs choose by it
    #[arg(long, value_name = "X", value_parser = crate::commands::gates::fraction)]
    target: Option<f64>,
    /// Print the command line of each run, and run nothing
    #[arg(long, conflicts_with = "collect")]
    list: bool,
    /// Run nothing: put the runs that are finished side by side, wherever they ran, and say what is missing
    #[arg(long)]
    collect: bool,
    /// Run nothing: put these finished runs side by side, each against the one before it, in the folder compare below
    /// --out (default: a folder beside the first that is named after the runs)
    #[arg(long, value_name = "DIR", num_args = 2.., conflicts_with_all = ["strategies", "seeds", "folds", "list", "collect"])]
    runs: Vec<PathBuf>,
}

impl CompareArgs {
    fn repeats(&self) -> Repeats {
        self.folds.map_or(Repeats::Seeds(self.seeds as usize), |folds| Repeats::Folds(folds as usize))
    }
}

/// Plans, runs and compares.
///
/// # Errors
/// Problems of the config and the data before anything runs; [`Error::Interrupted`] after a signal; after the table,
/// [`Error::Runs`] when runs failed.
pub fn run(args: &CompareArgs, console: &Console) -> Result<()> {
    if let Some(first) = args.runs.first() {
        let beside = || first.parent().unwrap_or(Path::new("")).join(named_after(&args.runs));
        let out = args.config.only_out("--runs")?.map_or_else(beside, |out| out.join("compare"));
        let comparison = side_by_side(&args.runs, out, args.target)?;
        return console.output(&comparison, || comparison.table());
    }
    let config = args.config.all();
    let sets = config_args::complete(config.file(), config.sets()?)?;
    let as_typed = |error| config.as_typed(error);
    let mut ladder = Ladder::new(config.file(), &sets).map_err(as_typed)?;
    let rungs = rungs(args, &ladder.base, console)?;
    if rungs.contains(&Rung::Partial) {
        let location = weights::local(&ladder.base.model.backbone, Wanted::Backbone, console)?;
        ladder.depth = Backbone::describe(&location, &ladder.base.model)?.depth;
    }
    let runs = ladder.runs(&rungs, args.repeats()).map_err(as_typed)?;
    if args.list {
        return list(&runs, console);
    }
    let folder = ladder.folder();
    let (provenance, failed) = if args.collect {
        (commonest_provenance(&runs), Vec::new())
    } else {
        let provenance = runs::provenance(&runs, &ladder.base, console)?;
        let failed = runs::all(&runs, &provenance, &folder, console)?;
        (Some(provenance), failed)
    };
    let (contenders, missing) = gather::contenders(&rungs, &runs, provenance.as_ref(), &failed);
    let failure = runs::error(&failed, runs.len());
    if contenders.iter().all(|contender| contender.finished.is_empty())
        && let Some(error) = failure
    {
        return Err(error);
    }
    let target = args.target.or(ladder.base.probe.target);
    let question = Question { name: ladder.base.run.name.clone(), folder, repeats: args.repeats(), target };
    let comparison = Comparison::new(question, &contenders, missing)?;
    comparison.write()?;
    console.output(&comparison, || comparison.table())?;
    failure.map_or(Ok(()), Err)
}

/// The rungs asked for, or those that apply to the backbone.
fn rungs(args: &CompareArgs, base: &Settings, console: &Console) -> Result<Vec<Rung>> {
    let asked = Rung::named(&args.strategies)?;
    if !asked.is_empty() && !asked.contains(&Rung::Zeroshot) {
        return Ok(asked);
    }
    let location = weights::local(&base.model.backbone, Wanted::Backbone, console)?;
    let with_texts = TextTower::is_in(&location)?;
    if asked.is_empty() {
        return Ok(Rung::usual(with_texts));
    }
    if with_texts {
        return Ok(asked);
    }
    let message = format!("zeroshot compares images with texts, but {} has no text tower", base.model.backbone);
    Err(Error::usage_hint(message, "leave it out, or take a CLIP or SigLIP model"))
}

/// One command line a run.
fn list(runs: &[PlannedRun], console: &Console) -> Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| env!("CARGO_PKG_NAME").into());
    let lines: Vec<String> = runs.iter().map(|run| run.line(&program, true)).collect();
    let rows: Vec<_> = runs.iter().zip(&lines).map(|(run, line)| json!({"run": run.name, "command": line})).collect();
    console.output(&json!({ "runs": rows }), || lines.join("\n"))
}
