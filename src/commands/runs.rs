//! `vitadapt runs`: what runs there are.

use crate::error::Result;
use crate::experiment::runs::{ListedRun, list};
use crate::report::{Console, listing_table, mebibytes, percent};
use crate::system::shown::Shown;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// The folder that holds the runs
    #[arg(value_name = "DIR", default_value = "runs")]
    folder: PathBuf,
}

/// Lists.
///
/// # Errors
/// As [`list`].
pub fn run(args: &RunsArgs, console: &Console) -> Result<()> {
    let runs = list(&args.folder)?;
    for run in &runs {
        if let Some(damage) = &run.damage {
            console.warn(damage);
        }
    }
    console.output(&json!({ "runs": runs }), || table(&runs))
}

fn table(runs: &[ListedRun]) -> String {
    if runs.is_empty() {
        return "no runs".into();
    }
    let score = |accuracy: Option<f64>| accuracy.map_or("-".into(), percent);
    let row = |run: &ListedRun| {
        vec![
            run.run.shown(),
            run.date.as_deref().map_or("-".into(), |date| date[..16].replace('T', " ")),
            run.strategy.clone().unwrap_or("-".into()),
            run.word().to_owned(),
            score(run.val_accuracy),
            score(run.test_accuracy),
            // Begun ones count, as on a disk.
            mebibytes(run.bytes.next_multiple_of(1 << 20)),
        ]
    };
    let header = ["run", "date (UTC)", "strategy", "status", "val", "test", "size"];
    let table = listing_table(4, &header, runs.iter().map(row));
    let doubtful = |run: &ListedRun| {
        run.doubts
            .iter()
            .map(|doubt| format!("\ndoubtful: {}, {}", run.run.shown(), doubt.sentence))
            .collect::<String>()
    };
    let doubts: String = runs.iter().map(doubtful).collect();
    if doubts.is_empty() { table } else { format!("{table}\n{doubts}") }
}
