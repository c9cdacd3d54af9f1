//! `[inspection]` for a run that is finished: thresholds follow from the logits of its validation images, which it has kept,
//! so nothing has to be trained or scored again.

use super::score::{draw_inspection, read_evaluation, read_foremost};
use crate::config::Settings;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::metrics::{Evaluation, Rules, Scores};
use crate::report::predictions::Predictions;
use crate::report::{Console, RunRecord, RunResult};
use crate::system::files::write_atomic;
use crate::system::json::write_json;
use crate::system::shown::Shown;
use std::collections::BTreeMap;
use std::path::Path;

/// Gives the run in `folder` the inspection of `settings`, which are otherwise its own: in its record, its scores, its
/// result and its `config.toml`. `dataset` is its own.
///
/// # Errors
/// A usage error when a good class is not among the classes or the run has kept no validation logits; errors of its files.
pub fn adopt(
    folder: &Path,
    record: &mut RunRecord,
    settings: &Settings,
    dataset: &Dataset,
    console: &Console,
) -> Result<()> {
    if record.sound_class().is_some() {
        return Err(Error::usage_hint(
            format!("{} is a patchcore run: its threshold was chosen with its memory of sound parts", folder.shown()),
            "set [inspection] in its config and run `vitadapt probe` again",
        ));
    }
    let rules = rules(folder, record, settings)?;
    if let Some(doubts) = rules.as_ref().and_then(Rules::doubts) {
        console.warn(doubts);
    }
    let groups: BTreeMap<&str, Option<&str>> =
        dataset.samples.iter().map(|sample| (sample.name.as_str(), sample.group.as_deref())).collect();
    // All are judged before the first is written.
    let mut judged = Vec::new();
    for split in Split::ALL {
        let Some(evaluation) = read_evaluation(folder, split) else { continue };
        let found = Predictions::of_run(folder, split.name())?;
        let evaluation = match &rules {
            Some(rules) => inspected(evaluation, &found, record, &groups, rules)?,
            None => Evaluation { inspection: None, ..evaluation },
        };
        judged.push((split, found, evaluation));
    }
    for (split, found, evaluation) in judged {
        write_json(&folder.join(format!("eval-{split}.json")), &evaluation)?;
        let (logits, labels) = found.columns();
        draw_inspection(folder, &record.classes, (&logits, &labels), &evaluation)?;
    }
    record.inspection = rules;
    let inspection = read_foremost(folder).and_then(|foremost| foremost.inspection);
    match &mut record.result {
        Some(RunResult::Finetune(result)) => result.inspection = inspection,
        Some(RunResult::Probe(result)) => result.inspection = inspection,
        Some(RunResult::Zeroshot(result)) => result.inspection = inspection,
        Some(RunResult::LrFinder(_) | RunResult::Patchcore(_)) | None => {}
    }
    write_json(&folder.join("run.json"), record)?;
    write_atomic(&folder.join("config.toml"), settings.to_toml()?.as_bytes())?;
    console.info("thresholds are chosen anew, on the validation logits that the run has kept");
    Ok(())
}

/// Chosen on the validation images, as at the end of the run.
fn rules(folder: &Path, record: &RunRecord, settings: &Settings) -> Result<Option<Rules>> {
    let kept = Predictions::of_run(folder, Split::Val.name());
    let known = kept.ok().filter(|found| found.classes == record.classes);
    let Some(found) = known else {
        let message = format!("{} has kept no logits of validation images to choose thresholds on", folder.shown());
        return Err(Error::usage_hint(message, "make the run again with [inspection]"));
    };
    let (logits, labels) = found.columns();
    let scores = Scores::new(&logits, &labels, record.classes.len())?;
    Rules::choose(&settings.inspection, &record.classes, Some((&scores, record.temperature.unwrap_or(1.0))))
}

fn inspected(
    evaluation: Evaluation,
    found: &Predictions,
    record: &RunRecord,
    groups: &BTreeMap<&str, Option<&str>>,
    rules: &Rules,
) -> Result<Evaluation> {
    let (logits, labels) = found.columns();
    let groups: Vec<Option<&str>> =
        found.rows.iter().map(|row| groups.get(row.path.as_str()).copied().flatten()).collect();
    let groups = if groups.iter().all(Option::is_none) { Vec::new() } else { groups };
    evaluation.inspected(&logits, &labels, &record.classes, &groups, rules)
}
