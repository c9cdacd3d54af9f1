//! Scoring splits and writing down what came out.

use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::metrics::{Evaluation, Scores, evaluate, fit_temperature};
use crate::report::{Console, percent, plots, write_json};
use crate::train::feed::{Feed, Scored};
use crate::train::trainer::Trainer;
use std::path::Path;

/// The scores of several splits.
pub struct SplitScores {
    /// Fitted on the validation images; none without them.
    pub temperature: Option<f64>,
    /// In the order asked for, without empty splits.
    pub evaluations: Vec<Evaluation>,
}

/// Scores the splits that have images, with the temperature fitted on validation.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn score_splits(
    feed: &Feed,
    trainer: &Trainer,
    classes: &[String],
    splits: &[Split],
    console: &Console,
) -> Result<SplitScores> {
    let mut scored = Vec::new();
    for &split in splits.iter().filter(|split| feed.len(**split) > 0) {
        scored.push((split, score(feed, trainer, split, console)?));
    }
    let temperature = match scored.iter().find(|(split, _)| *split == Split::Val) {
        Some((_, val)) => Some(fit_temperature(&Scores::new(&val.logits, &val.labels, classes.len())?)),
        None => None,
    };
    let evaluations = scored
        .iter()
        .map(|(split, scored)| evaluate_scored(split.name(), &feed.dataset, scored, classes, temperature))
        .collect::<Result<_>>()?;
    Ok(SplitScores { temperature, evaluations })
}

/// The logits of one split, under a progress bar.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn score(feed: &Feed, trainer: &Trainer, split: Split, console: &Console) -> Result<Scored> {
    let progress = console.progress(feed.len(split) as u64, &format!("scoring {}", split.name()));
    let scored = feed.score(trainer, split, &mut |images| progress.inc(images as u64));
    progress.finish();
    scored
}

/// All metrics of scored samples; groups of the data widen the interval.
///
/// # Errors
/// When there are no samples.
pub fn evaluate_scored(
    name: &str,
    dataset: &Dataset,
    scored: &Scored,
    classes: &[String],
    temperature: Option<f64>,
) -> Result<Evaluation> {
    let groups: Vec<Option<&str>> =
        scored.indices.iter().map(|&index| dataset.samples[index].group.as_deref()).collect();
    let groups = if groups.iter().all(Option::is_none) { Vec::new() } else { groups };
    evaluate(name, &scored.logits, &scored.labels, classes, temperature.unwrap_or(1.0), &groups)
}

/// The scores of a split that a run directory holds; none when it was not scored or the file is damaged.
pub fn read_evaluation(folder: &Path, split: Split) -> Option<Evaluation> {
    let text = std::fs::read_to_string(folder.join(format!("eval-{}.json", split.name()))).ok()?;
    serde_json::from_str(&text).ok()
}

/// Writes `eval-NAME.json` and the confusion matrix of each evaluation into a run directory.
///
/// # Errors
/// When they cannot be written.
pub fn write_evaluations(folder: &Path, evaluations: &[Evaluation]) -> Result<()> {
    for evaluation in evaluations {
        let name = &evaluation.split;
        write_json(&folder.join(format!("eval-{name}.json")), evaluation)?;
        let classes: Vec<String> = evaluation.per_class.iter().map(|class| class.class.clone()).collect();
        let title = format!("{name}: accuracy {}", percent(evaluation.accuracy));
        plots::save_confusion(
            &folder.join(format!("plots/confusion-{name}")),
            &title,
            &classes,
            &evaluation.confusion,
        )?;
    }
    Ok(())
}
