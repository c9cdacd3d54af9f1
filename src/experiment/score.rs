//! Scoring splits and writing down what came out.

use crate::config::InspectionSettings;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::metrics::{
    Decision, DoubtKind, Evaluation, Inspection, KindScore, Rules, ScoredPart, Scores, evaluate, fit_temperature,
    kind_scores, softmax,
};
use crate::model::{BatchSource, Model, Scored};
use crate::report::predictions::Predictions;
use crate::report::{Console, RunRecord, percent, plots};
use crate::system::json::{read_json, write_json};
use crate::system::shown::{counted, part_of};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// One split: the logits of its images, and what they are worth.
pub struct SplitScore {
    /// Image by image.
    pub scored: Scored,
    /// All together.
    pub evaluation: Evaluation,
}

/// What makes probabilities and decisions of logits: fixed on images that the model was not fitted on.
#[derive(Debug, Clone, Default)]
pub struct Calibration {
    /// Divides the logits; none without such images.
    pub temperature: Option<f64>,
    /// How parts are judged, when a good class is named.
    pub rules: Option<Rules>,
}

impl Calibration {
    /// On held-out images, if there are any. `SigLIP` was trained to answer each pair of image and text for itself; among
    /// classes of which one is right its logits go into the same softmax, where its bias cancels.
    ///
    /// # Errors
    /// A usage error when a good class is not among the classes.
    pub fn fit(held_out: Option<&Scored>, classes: &[String], settings: &InspectionSettings) -> Result<Self> {
        let held_out = held_out.filter(|held_out| !held_out.labels.is_empty());
        let scores = held_out.map(|held_out| Scores::new(&held_out.logits, &held_out.labels, classes.len()));
        let scores = scores.transpose()?;
        let temperature = scores.as_ref().map(fit_temperature);
        let rules = Rules::choose(settings, classes, scores.as_ref().zip(temperature))?;
        Ok(Self { temperature, rules })
    }

    /// What was fixed at the end of a run.
    pub fn of(record: &RunRecord) -> Self {
        Self { temperature: record.temperature, rules: record.inspection.clone() }
    }

    /// Writes it into the record of its run, and says what could not be fixed.
    pub fn record(self, record: &mut RunRecord, console: &Console) {
        if let Some(doubts) = self.rules.as_ref().and_then(Rules::doubts) {
            console.warn(doubts);
        }
        (record.temperature, record.inspection) = (self.temperature, self.rules);
    }
}

impl SplitScore {
    /// All metrics of scored samples, under the name that their files will have; groups of the data widen the intervals.
    ///
    /// # Errors
    /// When there are no samples; when a logit is not finite, naming the image.
    pub fn new(name: &str, dataset: &Dataset, scored: Scored, calibration: &Calibration) -> Result<Self> {
        let groups: Vec<Option<&str>> =
            scored.indices.iter().map(|&index| dataset.samples[index].group.as_deref()).collect();
        check_finite(&scored, dataset)?;
        let groups = if groups.iter().all(Option::is_none) { Vec::new() } else { groups };
        let (temperature, classes) = (calibration.temperature.unwrap_or(1.0), &dataset.classes);
        let evaluation = evaluate(name, &scored.logits, &scored.labels, classes, temperature, &groups)?;
        let evaluation = match &calibration.rules {
            Some(rules) => evaluation.inspected(&scored.logits, &scored.labels, classes, &groups, rules)?,
            None => evaluation,
        };
        let kinds = calibration.rules.as_ref().map(|rules| kinds(dataset, &scored, rules, temperature));
        let evaluation = Evaluation { kinds: kinds.unwrap_or_default(), ..evaluation };
        Ok(Self { scored, evaluation })
    }
}

/// How each kind of part fared; nothing where labels say the kind.
fn kinds(dataset: &Dataset, scored: &Scored, rules: &Rules, temperature: f64) -> Vec<KindScore> {
    let classes = &dataset.classes;
    let sound: Vec<bool> = classes.iter().map(|class| rules.good.contains(class)).collect();
    let rows = scored.logits.chunks_exact(classes.len().max(1)).zip(&scored.labels).zip(&scored.indices);
    let part = |((logits, &label), &index): ((&[f32], &usize), &usize)| {
        let wide: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        let sign = |&sound: &bool| if sound { -1.0 } else { 1.0 };
        Some(ScoredPart {
            kind: dataset.samples[index].kind.as_deref()?,
            sound: sound[label],
            // Not the probability, in which high scores are all 1.
            score: wide.iter().zip(&sound).map(|(logit, sound)| logit * sign(sound)).sum(),
            accepted: rules.decide(&softmax(&wide, temperature), classes) == Decision::Good,
        })
    };
    kind_scores(&rows.filter_map(part).collect::<Vec<_>>())
}

/// What splits were scored, each with its logits.
pub type ScoredSplits = Vec<(Split, Scored)>;

/// Refuses logits that are not finite: whatever followed from them would look like a score.
fn check_finite(scored: &Scored, dataset: &Dataset) -> Result<()> {
    let classes = dataset.classes.len().max(1);
    let bad = |row: &[f32]| !row.iter().all(|logit| logit.is_finite());
    let Some(first) = scored.logits.chunks_exact(classes).position(bad) else { return Ok(()) };
    let all = scored.logits.chunks_exact(classes).filter(|row| bad(row)).count();
    let name = &dataset.samples[scored.indices[first]].name;
    let images = scored.labels.len();
    Err(Error::NotFinite(format!(
        "the logits of {} are not finite numbers; the first is {name:?}",
        part_of(all, images, "image")
    )))
}

/// The logits of the splits that have images, and the features that the head read of the validation images, row-major.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn score_splits(
    source: &BatchSource,
    model: &Model,
    splits: &[Split],
    console: &Console,
) -> Result<(ScoredSplits, Vec<f32>)> {
    let (mut scored, mut val_features) = (Vec::new(), Vec::new());
    for &split in splits.iter().filter(|split| source.len(**split) > 0) {
        let mut each = |features| {
            if split == Split::Val {
                val_features.extend::<Vec<f32>>(features);
            }
        };
        scored.push((split, score_each(source, model, split, &mut each, console)?));
    }
    Ok((scored, val_features))
}

/// All metrics of scored splits, calibrated on the validation images among them, if there are any.
///
/// # Errors
/// When a split has no samples; a usage error when a good class is not among the classes.
pub fn evaluate_splits(
    dataset: &Dataset,
    scored: ScoredSplits,
    settings: &InspectionSettings,
) -> Result<(Calibration, Vec<SplitScore>)> {
    let val = scored.iter().find(|(split, _)| *split == Split::Val).map(|(_, scored)| scored);
    let calibration = Calibration::fit(val, &dataset.classes, settings)?;
    let evaluate = |(split, scored): (Split, Scored)| SplitScore::new(split.name(), dataset, scored, &calibration);
    let scores = scored.into_iter().map(evaluate).collect::<Result<_>>()?;
    Ok((calibration, scores))
}

/// The logits of one split, under a progress bar.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn score(source: &BatchSource, model: &Model, split: Split, console: &Console) -> Result<Scored> {
    score_each(source, model, split, &mut |_| (), console)
}

/// The same, where `each` is given the features of each batch.
fn score_each(
    source: &BatchSource,
    model: &Model,
    split: Split,
    each: &mut dyn FnMut(Vec<f32>),
    console: &Console,
) -> Result<Scored> {
    let progress = console.progress(source.len(split) as u64, &format!("scoring {}", split.name()));
    source.score(model, split, &mut |images, features| {
        progress.inc(images as u64);
        each(features);
    })
}

/// The evaluation of a split, if it was scored.
pub fn of(scores: &[SplitScore], split: Split) -> Option<&Evaluation> {
    scores.iter().map(|score| &score.evaluation).find(|evaluation| evaluation.split == split.name())
}

/// The evaluation that a person wants to see first: of the test images, or else of the validation images.
pub fn foremost(scores: &[SplitScore]) -> Option<&Evaluation> {
    [Split::Test, Split::Val].into_iter().find_map(|split| of(scores, split))
}

/// What its decisions do to parts, when a good class is named.
pub fn inspection(scores: &[SplitScore]) -> Option<&Inspection> {
    foremost(scores)?.inspection.as_ref()
}

/// The scores of a split that a run directory holds; none when it was not scored or the file is damaged.
pub fn read_evaluation(folder: &Path, split: Split) -> Option<Evaluation> {
    let found: Evaluation = read_json(&folder.join(format!("eval-{split}.json"))).ok()?;
    let classes = found.per_class.len();
    let square = found.confusion.len() == classes && found.confusion.iter().all(|row| row.len() == classes);
    square.then_some(found)
}

/// The scores that a person wants to see first, of those that a run directory holds.
pub fn read_foremost(folder: &Path) -> Option<Evaluation> {
    [Split::Test, Split::Val].into_iter().find_map(|split| read_evaluation(folder, split))
}

/// The file of scores that are doubtful, beside those that the run made.
fn again(folder: &Path, split: Split) -> PathBuf {
    folder.join(format!("eval-{split}-again.json"))
}

/// The scores that speak against those of the run, if there are any.
pub fn read_again(folder: &Path, split: Split) -> Option<Evaluation> {
    read_json(&again(folder, split)).ok()
}

/// Writes what a split of the run scored later; whether it took the place of what the run had written. Doubtful scores go
/// into a file of their own, so that an honest number stays where it is.
///
/// # Errors
/// When it cannot be written.
pub fn write_later(folder: &Path, dataset: &Dataset, score: &SplitScore, split: Split) -> Result<bool> {
    let again = again(folder, split);
    // There is no honest number of training images.
    if split != Split::Train && score.evaluation.doubts.iter().any(|doubt| doubt.kind != DoubtKind::Copied) {
        write_json(&again, &score.evaluation)?;
        return Ok(false);
    }
    match fs::remove_file(&again) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io("remove", &again)(error)),
        _ => {}
    }
    write_scores(folder, dataset, std::slice::from_ref(score))?;
    Ok(true)
}

/// Draws how the scores of good and of defective parts are spread, by the logits (n, classes) and the true classes of an
/// evaluation with an inspection; nothing of another one, or where there are not parts of both kinds.
///
/// # Errors
/// When it cannot be written.
pub fn draw_inspection(
    folder: &Path,
    classes: &[String],
    (logits, labels): (&[f32], &[usize]),
    evaluation: &Evaluation,
) -> Result<()> {
    let Some(inspection) = &evaluation.inspection else { return Ok(()) };
    let Some(separation) = inspection.separation(logits, labels, classes, evaluation.temperature)? else {
        return Ok(());
    };
    let name = &evaluation.split;
    let title = format!("{name}: scores of parts, and what any threshold would do");
    let picture = plots::Titled { title: &title, of: &separation };
    plots::save(&picture, &folder.join(format!("plots/inspection-{name}")))
}

/// Writes `eval-NAME.json`, `predictions-NAME.csv` and the pictures of each split into a run directory.
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
        let (classes, counts) = (&dataset.classes, &evaluation.confusion);
        let picture = plots::ConfusionPlot { title: &title, classes, counts };
        plots::save(&picture, &folder.join(format!("plots/confusion-{name}")))?;
        draw_inspection(folder, &dataset.classes, (&scored.logits, &scored.labels), evaluation)?;
        // Probabilities that are not finite have no diagram.
        if let Some(reliability) = evaluation.reliability.as_ref().filter(|found| !found.before.is_empty()) {
            let title = format!("{name}, {}: confidence and accuracy", counted(evaluation.n, "image"));
            let picture = plots::ReliabilityPlot { title: &title, temperature: evaluation.temperature, reliability };
            plots::save(&picture, &folder.join(format!("plots/reliability-{name}")))?;
        }
    }
    Ok(())
}
