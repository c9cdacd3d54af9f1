//! `vitadapt eval`: scores a run on one of its splits or on another folder, and gates on the result.

use super::corrupt::CorruptArgs;
use super::gates::Gates;
use super::one_of;
use crate::backbone::Segment;
use crate::config;
use crate::data::{ScoredSplit, Split};
use crate::error::{Error, Result};
use crate::experiment::adopt::adopt;
use crate::experiment::doubts::{doubts, doubts_of_others};
use crate::experiment::page::PageInputs;
use crate::experiment::places::MaskedMaps;
use crate::experiment::robustness;
use crate::experiment::saved::SavedRun;
use crate::experiment::score::{Calibration, SplitScore, score, write_later};
use crate::experiment::tiles::refuse_tiles;
use crate::metrics::{Evaluation, Inspection, Places, Robustness};
use crate::report::junit;
use crate::report::{
    Console, confusion_table, doubts_first, evaluation_table, inspection_first, places_table, robustness_table,
    write_json,
};
use crate::system::lock::Lock;
use crate::system::shown::Shown;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The run directory, as finetune printed it
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The split to score: one of the run, or of --data where that names splits; default: test
    #[arg(long, value_parser = one_of::<Split>(&["train", "val", "test"]))]
    split: Option<Split>,
    /// Score other images instead: a folder of class folders, or a CSV file with path,label
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// The paths in that CSV file may be absolute and lead out of its folder
    #[arg(long, requires = "data")]
    allow_outside: bool,
    /// Compare the places of most evidence with masks of flaws: of the image bent/000.png, `DIR/bent/000_mask.png` or
    /// DIR/bent/000.png; default: those beside the splits, if any
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Device to run on instead of the run's: auto, cpu, cuda:N
    #[arg(long)]
    device: Option<String>,
    /// Give the finished run a setting of [inspection]: thresholds are chosen anew on the validation logits that
    /// it has kept (may be repeated)
    #[arg(long, value_name = "KEY=VALUE", value_parser = inspection)]
    set: Vec<String>,
    /// Write the gates as tests to a JUnit XML file, for the pages of CI systems
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    corrupt: CorruptArgs,
    #[command(flatten)]
    gates: Gates,
}

/// The only settings that a finished run can still be given.
fn inspection(text: &str) -> std::result::Result<String, String> {
    if text.starts_with("inspection.") { Ok(text.to_owned()) } else { Err("only inspection.KEY=VALUE".into()) }
}

/// Scores and gates.
///
/// # Errors
/// [`Error::Gate`] when a threshold is missed, after the results were printed.
pub fn run(args: &EvalArgs, console: &Console) -> Result<()> {
    let mut run = SavedRun::open(&args.run, args.device.as_deref(), Segment::Embed, &args.set, console)?;
    if args.corrupt.asks() {
        refuse_tiles(run.record.preprocess.tiles.is_some(), "--corrupt draws its flaws on whole images")?;
    }
    if !args.set.is_empty() {
        let (_lock, dataset) = (Lock::acquire(&args.run)?, run.dataset()?);
        // As they are written down: those of the session are on another device, and without what a head does not need.
        let settings = config::load(Some(&args.run.join("config.toml")), &args.set)?;
        adopt(&args.run, &mut run.record, &settings, &dataset, console)?;
    }
    let gates = &args.gates;
    if gates.need_inspection() && run.record.inspection.is_none() {
        let message = "the run has no good class, so nothing is an escape or overkill";
        return Err(Error::usage_hint(message, "name it with --set inspection.good=CLASS"));
    }
    let watch = run.watch();
    // Other images count as test images.
    let split = args.split.filter(|_| args.data.is_none()).unwrap_or(Split::Test);
    let (dataset, doubts) = match &args.data {
        None => {
            let dataset = run.own_samples(split)?;
            let doubts = doubts(&run, &dataset, split)?;
            (dataset, doubts)
        }
        Some(data) => {
            let found = run.other_samples(data, args.split, args.allow_outside, console)?;
            (found.dataset, doubts_of_others(&run, &found.findings, console)?)
        }
    };
    let mut source = run.watched_source(dataset, watch.clone());
    let name = if args.data.is_some() { "data" } else { split.name() };
    let maps = MaskedMaps::of(&run, (&source.dataset, split), args.masks.as_deref(), args.data.as_deref(), console)?;
    let scored = score(&source, &run.model, split, console)?;
    watch.iter().flat_map(|watch| watch.notices()).for_each(|notice| console.warn(notice));
    let mut score = SplitScore::new(name, &source.dataset, scored, &Calibration::of(&run.record))?;
    score.evaluation.doubts = doubts;
    let evaluation = &score.evaluation;
    let robustness = robustness::measure(
        (&args.corrupt.kinds(), args.corrupt.levels),
        &run,
        &mut source,
        split,
        evaluation,
        console,
    )?;
    let places = maps.map(|maps| maps.places(name, &source.dataset, &score.scored, console)).transpose()?.flatten();
    if args.data.is_none() {
        if write_later(&args.run, &source.dataset, &score, split)? {
            robustness.iter().try_for_each(|robustness| robustness::write(&args.run, robustness))?;
            places.iter().try_for_each(|places| write_json(&args.run.join(format!("places-{split}.json")), places))?;
        } else {
            console.info(format!("eval-{split}.json stays as it was, these scores are in eval-{split}-again.json"));
        }
        PageInputs::of_run(&run, &source.dataset, &source.evaluation).leave(console);
    }
    if let Some(gaps) = evaluation.inspection.as_ref().and_then(Inspection::gaps) {
        console.warn(gaps);
    }
    let part = source.dataset.part.as_ref();
    let scores = EvalOutput { evaluation, part, robustness: robustness.as_ref(), places: places.as_ref() };
    let confused = || format!("{}\n\n{}", evaluation_table(evaluation), confusion_table(evaluation));
    let plain = || inspection_first(Some(evaluation), confused());
    console.output(&scores, || {
        let tables = robustness.as_ref().map_or_else(plain, robustness_table);
        let tables = places.iter().fold(tables, |tables, places| format!("{tables}\n\n{}", places_table(places)));
        let tables = doubts_first(&evaluation.doubts, tables);
        match part.zip(args.data.as_ref()) {
            None => tables,
            Some((part, data)) => format!("{}\n\n{tables}", part.sentence(data)),
        }
    })?;
    let gates = gates.check(evaluation, robustness.as_ref());
    if let Some(file) = &args.junit {
        junit::write(file, &format!("eval {} {}", args.run.shown(), evaluation.split), &gates)?;
    }
    let missed: Vec<String> = gates.into_iter().filter_map(|gate| gate.failure).collect();
    if missed.is_empty() { Ok(()) } else { Err(Error::Gate(missed)) }
}

/// What `eval --json` prints.
#[derive(Serialize)]
struct EvalOutput<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    #[serde(rename = "data_splits", skip_serializing_if = "Option::is_none")]
    part: Option<&'a ScoredSplit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    robustness: Option<&'a Robustness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    places: Option<&'a Places>,
}
