//! How a run's model bears images with flaws of growing strength.

use super::saved::SavedRun;
use super::score::{Calibration, SplitScore, score};
use crate::augment::Corruption;
use crate::data::Split;
use crate::error::Result;
use crate::metrics::{Evaluation, Robustness};
use crate::model::BatchSource;
use crate::report::{Console, percent, plots};
use crate::system::json::write_json;
use std::path::Path;
use std::sync::Arc;

/// Scores the split once for each flaw and strength; none without a flaw. `clean` is the split as it is. The source is
/// as before in the end.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn measure(
    (kinds, levels): (&[Corruption], u8),
    run: &SavedRun,
    source: &mut BatchSource,
    split: Split,
    clean: &Evaluation,
    console: &Console,
) -> Result<Option<Robustness>> {
    if kinds.is_empty() {
        return Ok(None);
    }
    let seed = run.record.seed;
    let strengths: Vec<f64> = (1..=levels).map(|level| f64::from(level) / f64::from(levels)).collect();
    let calibration = Calibration::of(&run.record);
    let plain = Arc::clone(&source.evaluation);
    let mut scored = Vec::with_capacity(kinds.len());
    for &kind in kinds {
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
    let picture = plots::Titled { title: &title, of: robustness };
    plots::save(&picture, &folder.join(format!("plots/robustness-{split}")))
}
