//! `eval --corrupt`: the images of a split with flaws of growing strength.

use crate::augment::Corruption;
use crate::config::closest;
use crate::data::Split;
use crate::error::Result;
use crate::experiment::saved::SavedRun;
use crate::experiment::score::{Calibration, SplitScore, score};
use crate::metrics::{Evaluation, Robustness};
use crate::model::BatchSource;
use crate::report::{Console, percent, plots};
use crate::system::json::write_json;
use clap::Args;
use std::path::Path;
use std::sync::Arc;

/// Which flaws are tried.
#[derive(Debug, Clone, Args)]
pub struct CorruptArgs {
    #[arg(long, value_name = "KIND", num_args = 0.., help = help(), value_delimiter = ',', default_missing_value = "all",
          value_parser = flaws)]
    corrupt: Option<Vec<Flaws>>,
    /// How many strengths from 0 to 1 are tried
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=20),
          requires = "corrupt")]
    levels: u8,
}

/// One word of the list.
#[derive(Debug, Clone, Copy)]
enum Flaws {
    All,
    One(Corruption),
}

fn names() -> Vec<&'static str> {
    Corruption::all().into_iter().map(Corruption::name).collect()
}

fn help() -> String {
    format!("Score the images with flaws of growing strength too: all, or some of {}", names().join(", "))
}

fn flaws(name: &str) -> std::result::Result<Flaws, String> {
    if name == "all" {
        return Ok(Flaws::All);
    }
    if let Some(corruption) = Corruption::parse(name) {
        return Ok(Flaws::One(corruption));
    }
    let names = names();
    Err(match closest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("give all, or some of {}", names.join(", ")),
    })
}

impl CorruptArgs {
    /// Whether any flaw is asked for.
    pub fn asks(&self) -> bool {
        !self.kinds().is_empty()
    }

    /// The flaws asked for, each once, in their own order; none when there is nothing to try.
    fn kinds(&self) -> Vec<Corruption> {
        let asked = self.corrupt.as_deref().unwrap_or_default();
        let wanted = |kind: &Corruption| {
            asked.iter().any(|flaws| match flaws {
                Flaws::All => true,
                Flaws::One(one) => one == kind,
            })
        };
        Corruption::all().into_iter().filter(wanted).collect()
    }
}

/// Scores the split once for each flaw and strength; none when no flaw was asked for. `clean` is the split as it is. The
/// source is as before in the end.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn measure(
    args: &CorruptArgs,
    run: &SavedRun,
    source: &mut BatchSource,
    split: Split,
    clean: &Evaluation,
    console: &Console,
) -> Result<Option<Robustness>> {
    let kinds = args.kinds();
    if kinds.is_empty() {
        return Ok(None);
    }
    let (seed, levels) = (run.record.seed, f64::from(args.levels));
    let strengths: Vec<f64> = (1..=args.levels).map(|level| f64::from(level) / levels).collect();
    let calibration = Calibration::of(&run.record);
    let plain = Arc::clone(&source.evaluation);
    let mut scored = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let mut evaluations = Vec::with_capacity(strengths.len());
        for &strength in &strengths {
            console.detail(format!("{} at strength {strength:.2}", kind.name()));
            source.evaluation = Arc::new(plain.corrupted(kind, strength, seed));
            let scored = score(source, &run.model, split, console)?;
            let score = SplitScore::new(&clean.split, &source.dataset, scored, &calibration)?;
            evaluations.push(score.evaluation);
        }
        scored.push((kind.name(), evaluations));
    }
    source.evaluation = plain;
    Ok(Some(Robustness::new(seed, strengths, clean, &scored)))
}

/// Writes `robustness-<split>.json` and its picture into a run directory.
///
/// # Errors
/// When they cannot be written.
pub fn write(folder: &Path, robustness: &Robustness) -> Result<()> {
    let split = &robustness.split;
    write_json(&folder.join(format!("robustness-{split}.json")), robustness)?;
    let title = format!(
        "{split}: accuracy {}, with flaws {}",
        percent(robustness.clean_accuracy),
        percent(robustness.mean_accuracy)
    );
    plots::save_robustness(&folder.join(format!("plots/robustness-{split}")), &title, robustness)
}
