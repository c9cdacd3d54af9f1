//! On which images a strategy is chosen, what the choice costs on test images, and whether the model can leave.

use super::recommend::{Recommendation, Recommender, StrategyScore, highest, scores};
use super::{Contender, Finished, Measure, Outcomes, PREDICTIONS, Repeats, StrategyRow};
use crate::backbone::Pool;
use crate::config::{self, ClassWeights, LossWeights, Sampler, Settings};
use crate::error::Result;
use crate::export::FORMATS;
use crate::metrics::{SelectionMetric, UNBALANCED};
use crate::model::HeadKind;
use crate::report::table::within;
use crate::report::{ProbeRecord, RunResult, percent};
use crate::system::shown::{are, counted, listed};
use serde::Serialize;

/// The images that strategies are chosen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChosenBy {
    /// The validation images: the test images have no part in it.
    Val,
    /// Each fold's test images, which all its own models had not seen.
    Folds,
    /// The test images, when there are no others that all were held out from.
    Test,
}

/// Whether all have been validated on the same images.
fn same_validation(rows: &[&StrategyRow]) -> bool {
    let first = rows.first().and_then(|row| row.val_outcomes.as_ref());
    first.is_some_and(|first| {
        rows.iter().all(|row| row.val_outcomes.as_ref().is_some_and(|outcomes| outcomes.same_images(first)))
    })
}

impl ChosenBy {
    fn of(rows: &[&StrategyRow], repeats: Repeats) -> Self {
        match repeats {
            Repeats::Folds(_) => Self::Folds,
            Repeats::Seeds(_) if same_validation(rows) => Self::Val,
            Repeats::Seeds(_) => Self::Test,
        }
    }

    /// After a score.
    fn in_words(self) -> &'static str {
        if self == Self::Val { " on validation" } else { " on test" }
    }

    fn outcomes(self, row: &StrategyRow) -> &Outcomes {
        row.val_outcomes.as_ref().filter(|_| self == Self::Val).unwrap_or(&row.outcomes)
    }
}

/// Which row to take of those that are complete and say what they cost, and on which images it was chosen. `waiting`:
/// strategies without a finished run.
pub(super) fn recommendation(
    all: &[StrategyRow],
    waiting: &[&str],
    (repeats, measure): (Repeats, Measure),
    target: Option<f64>,
) -> (Recommendation, Option<ChosenBy>) {
    let (complete, begun): (Vec<&StrategyRow>, Vec<&StrategyRow>) = all.iter().partition(|row| row.complete);
    let by = ChosenBy::of(&complete, repeats);
    let score = |row: &StrategyRow| by.outcomes(row).score(measure);
    let incomplete: Vec<&str> = begun.iter().map(|row| row.strategy.as_str()).chain(waiting.iter().copied()).collect();
    let mut left_out = Vec::new();
    if !incomplete.is_empty() {
        left_out.push(format!("{} {} not complete", listed(&incomplete, "and"), are(incomplete.len())));
    }
    let mut candidates = Vec::new();
    let mut costless = Vec::new();
    for row in &complete {
        let Some(operations) = row.operations else {
            costless.push(format!("{} ({}{})", row.strategy, percent(score(row)), by.in_words()));
            continue;
        };
        candidates.push(StrategyScore {
            name: &row.strategy,
            score: score(row),
            interval: by.outcomes(row).interval(measure),
            operations,
            trainable: row.trainable_parameters,
            formats: row.exportable.len(),
            tells: row.tells,
        });
    }
    if !costless.is_empty() {
        left_out.push(format!(
            "the runs of {} do not say how many operations they took, as those of older versions do not",
            listed(&costless, "and")
        ));
    }
    let of = |candidate: &StrategyScore<'_>| {
        complete.iter().find(|row| row.strategy == candidate.name).map(|row| by.outcomes(row))
    };
    let p_value =
        |a: &StrategyScore<'_>, b: &StrategyScore<'_>| of(a).zip(of(b)).map_or(1.0, |(a, b)| a.p_value(b, measure));
    let first = candidates.first().and_then(of);
    let chance = first.map_or(0.0, |outcomes| outcomes.chance(measure));
    let weighable = complete.iter().any(|row| row.plain) && first.is_some_and(|of| of.unbalanced(UNBALANCED));
    let (candidates, left_out) = (candidates.as_slice(), left_out.as_slice());
    let recommender = Recommender { candidates, left_out, measure, chance, weighable, p_value: &p_value };
    let mut found = recommender.recommend(target);
    let Some(chosen) = complete.iter().copied().find(|row| Some(&row.strategy) == found.strategy.as_ref()) else {
        return (found, None);
    };
    let images = by.outcomes(chosen).images();
    let test = (candidates.len() > 1).then(|| on_test(&complete, chosen, (by, measure), images));
    for sentence in test.into_iter().chain(leaving(&complete, chosen, (by, measure))) {
        found.sentence = format!("{}. {sentence}", found.sentence);
    }
    (found, Some(by))
}

/// What the chosen strategy scores on test images, and what another choice would have scored there.
fn on_test(rows: &[&StrategyRow], chosen: &StrategyRow, (by, measure): (ChosenBy, Measure), images: usize) -> String {
    let name = &chosen.strategy;
    let too_good = "so the score of what was chosen is a little too good";
    match by {
        ChosenBy::Folds => return format!("Chosen by the folds that are in the table, {too_good}"),
        ChosenBy::Test => {
            return format!(
                "There are no validation images that all have in common: chosen by the test images, {too_good}"
            );
        }
        ChosenBy::Val => {}
    }
    let interval = chosen.test_ci95.map_or(String::new(), |bounds| format!(" (95 %: {})", within(bounds)));
    let chance = chosen.outcomes.chance(measure);
    let chance = if chosen.test_ci95.is_some_and(|[low, _]| low <= chance) {
        format!(", which is not shown to be better than always naming the commonest class ({})", percent(chance))
    } else {
        String::new()
    };
    let scored = format!(
        "These scores are of the {} that it was chosen on; on the test images {name} scores {}{interval}{chance}",
        counted(images, "validation image"),
        percent(chosen.test)
    );
    let highest = highest(rows.to_vec(), |row| row.test);
    let names: Vec<&str> = highest.iter().map(|row| row.strategy.as_str()).collect();
    match highest.first().filter(|row| row.test > chosen.test) {
        None => format!("{scored}, and none scores higher there"),
        Some(row) => format!(
            "{scored}, and {} highest there with {}: the choice costs {:.1} points (paired test{}, p = {:.3})",
            scores(&names),
            percent(row.test),
            100.0 * (row.test - chosen.test),
            if names.len() == 1 { String::new() } else { format!(" with {}", row.strategy) },
            row.outcomes.p_value(&chosen.outcomes, measure)
        ),
    }
}

/// What to take instead where the chosen model cannot be exported to every format; none where it can.
fn leaving(rows: &[&StrategyRow], chosen: &StrategyRow, (by, measure): (ChosenBy, Measure)) -> Option<String> {
    let lacks: Vec<&str> =
        FORMATS.iter().map(|format| format.name).filter(|format| !chosen.exportable.contains(format)).collect();
    if lacks.is_empty() {
        return None;
    }
    let name = &chosen.strategy;
    let cannot = if chosen.exportable.is_empty() {
        format!("{name} cannot be exported, since training images are part of it")
    } else {
        format!("{name} can be exported to {} only", listed(&chosen.exportable, "and"))
    };
    if rows.len() == 1 {
        return Some(cannot);
    }
    let other = |format: &&str| {
        let able = rows.iter().copied().filter(|row| row.exportable.contains(format)).collect();
        let score = |row: &StrategyRow| by.outcomes(row).score(measure);
        let work = |row: &&StrategyRow| row.operations.unwrap_or(f64::INFINITY);
        let cheapest = highest(able, |row| score(row)).into_iter().min_by(|a, b| work(a).total_cmp(&work(b)));
        cheapest.map(|row| format!("{} ({}{})", row.strategy, percent(score(row)), by.in_words()))
    };
    // Formats with the same answer are named together.
    let mut others: Vec<(Option<String>, Vec<&str>)> = Vec::new();
    for format in lacks {
        let best = other(&format);
        match others.iter_mut().find(|(known, _)| *known == best) {
            Some((_, formats)) => formats.push(format),
            None => others.push((best, vec![format])),
        }
    }
    let said = others.into_iter().map(|(best, formats)| match best {
        Some(best) => format!("the best for {} is {best}", listed(&formats, "and")),
        None => format!("none can be exported to {}", listed(&formats, "or")),
    });
    Some(format!("{cannot}; {}", said.collect::<Vec<_>>().join("; ")))
}

/// Whether classes count in a run by how common they are.
pub(super) fn is_plain(run: &Finished) -> bool {
    let Some(Settings { probe, train, .. }) = settings(run) else { return true };
    if run.record.strategy == "probe" {
        probe.class_weights == ClassWeights::None
    } else {
        train.class_weights == LossWeights::None && train.sampler == Sampler::Shuffle
    }
}

fn settings(run: &Finished) -> Option<Settings> {
    config::load(Some(&run.folder.join("config.toml")), &[]).ok()
}

/// The formats that have layers for the head of a run and for what it adds to the backbone. Whether a format has the
/// backbone is for `export` to say.
pub(super) fn formats(run: &Finished) -> Vec<&'static str> {
    let record = &run.record;
    let all = || FORMATS.iter().map(|format| format.name);
    let remembers = record.head().remembers() || record.probe.as_ref().is_some_and(ProbeRecord::votes);
    if remembers {
        return Vec::new();
    }
    let pool = settings(run).map(|settings| settings.model.pool);
    let added_pool = pool.is_some_and(|pool| Pool::named(pool).is_some_and(Pool::is_added));
    let beyond_a_layer = added_pool
        || record.preprocess.tiles.is_some()
        || record.head() != HeadKind::Linear
        || record.strategy == "prompt"
        || record.readout().blocks > 1;
    // The last format expresses most.
    if beyond_a_layer { all().next_back().into_iter().collect() } else { all().collect() }
}

/// The accuracy where all runs have chosen their epoch or setting by it, balanced accuracy where one has chosen by a
/// metric to which classes count alike. Runs that have chosen by neither, or nothing, leave it to the classes of the
/// images that the first was tested on.
///
/// # Errors
/// When the answers of the first run cannot be read.
pub(super) fn measured_by(contenders: &[&Contender]) -> Result<Measure> {
    let results = contenders.iter().flat_map(|c| &c.finished).filter_map(|run| run.record.result.as_ref());
    let chosen: Vec<SelectionMetric> = results
        .filter_map(|result| match result {
            RunResult::Finetune(result) => result.metric,
            RunResult::Probe(result) => result.metric,
            RunResult::Patchcore(_) | RunResult::Zeroshot(_) | RunResult::LrFinder(_) => None,
        })
        .filter(|metric| *metric != SelectionMetric::LogLoss)
        .collect();
    let first = contenders.iter().flat_map(|contender| &contender.finished).next();
    let accuracy = match first {
        Some(first) if chosen.is_empty() => !Outcomes::of_run(&first.folder, PREDICTIONS)?.unbalanced(UNBALANCED),
        _ => !chosen.iter().any(|metric| metric.counts_classes_alike()),
    };
    Ok(if accuracy { Measure::Accuracy } else { Measure::BalancedAccuracy })
}
