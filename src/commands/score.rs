//! Scoring splits and writing down what came out.

use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::metrics::{Evaluation, Scores, evaluate, fit_temperature};
use crate::report::predictions::Predictions;
use crate::report::{Console, percent, plots, read_json, write_json};
use crate::train::feed::{Feed, Scored};
use crate::train::trainer::Trainer;
use std::path::Path;

/// One split: the logits of its images, and what they are worth.
pub struct SplitScore {
    /// Image by image.
    pub scored: Scored,
    /// All together.
    pub evaluation: Evaluation,
}

impl SplitScore {
    /// All metrics of scored samples, under the name that their files will have; groups of the data widen the interval.
    ///
    /// # Errors
    /// When there are no samples.
    pub fn new(name: &str, dataset: &Dataset, scored: Scored, temperature: Option<f64>) -> Result<Self> {
        let groups: Vec<Option<&str>> =
            scored.indices.iter().map(|&index| dataset.samples[index].group.as_deref()).collect();
        let groups = if groups.iter().all(Option::is_none) { Vec::new() } else { groups };
        let temperature = temperature.unwrap_or(1.0);
        let evaluation = evaluate(name, &scored.logits, &scored.labels, &dataset.classes, temperature, &groups)?;
        Ok(Self { scored, evaluation })
    }
}

/// Scores the splits that have images; with the temperature fitted on validation, if there are validation images.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn score_splits(
    feed: &Feed,
    trainer: &Trainer,
    splits: &[Split],
    console: &Console,
) -> Result<(Option<f64>, Vec<SplitScore>)> {
    let mut scored = Vec::new();
    for &split in splits.iter().filter(|split| feed.len(**split) > 0) {
        scored.push((split, score(feed, trainer, split, console)?));
    }
    evaluate_splits(&feed.dataset, scored)
}

/// The temperature fitted on the validation images, if there are any, and all metrics at it. `SigLIP` was trained to answer
/// each pair of image and text for itself; among classes of which one is right its logits go into the same softmax, where
/// its bias cancels.
///
/// # Errors
/// When a split has no samples.
pub fn evaluate_splits(dataset: &Dataset, scored: Vec<(Split, Scored)>) -> Result<(Option<f64>, Vec<SplitScore>)> {
    let temperature = match scored.iter().find(|(split, _)| *split == Split::Val) {
        Some((_, val)) => Some(fit_temperature(&Scores::new(&val.logits, &val.labels, dataset.classes.len())?)),
        None => None,
    };
    let evaluate = |(split, scored): (Split, Scored)| SplitScore::new(split.name(), dataset, scored, temperature);
    let scores = scored.into_iter().map(evaluate).collect::<Result<_>>()?;
    Ok((temperature, scores))
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

/// The evaluation of a split, if it was scored.
pub fn of(scores: &[SplitScore], split: Split) -> Option<&Evaluation> {
    scores.iter().map(|score| &score.evaluation).find(|evaluation| evaluation.split == split.name())
}

/// The scores of a split that a run directory holds; none when it was not scored or the file is damaged.
pub fn read_evaluation(folder: &Path, split: Split) -> Option<Evaluation> {
    read_json(&folder.join(format!("eval-{split}.json")))
}

/// Writes `eval-NAME.json`, `predictions-NAME.csv` and the confusion matrix of each split into a run directory.
///
/// # Errors
/// When they cannot be written.
pub fn write_scores(folder: &Path, dataset: &Dataset, scores: &[SplitScore]) -> Result<()> {
    for SplitScore { scored, evaluation } in scores {
        let name = &evaluation.split;
        write_json(&folder.join(format!("eval-{name}.json")), evaluation)?;
        let predictions = Predictions::new(dataset, scored, evaluation.temperature);
        predictions.write(&folder.join(format!("predictions-{name}.csv")))?;
        let title = format!("{name}: accuracy {}", percent(evaluation.accuracy));
        let picture = folder.join(format!("plots/confusion-{name}"));
        plots::save_confusion(&picture, &title, &dataset.classes, &evaluation.confusion)?;
    }
    Ok(())
}
