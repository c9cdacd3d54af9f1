//! Strategies side by side on the same images: the table, which differences are noise, and which strategy to take.
//!
//! Everything is computed from what finished runs have written down, so it does not matter where they ran.

mod choice;
mod cost;
mod measure;
mod outcomes;
mod recommend;
mod text;

pub use choice::ChosenBy;
pub use measure::{Measure, Repeats};
pub use outcomes::{Outcomes, PREDICTIONS};
pub use recommend::Recommendation;

use super::RunRecord;
use super::html::save_comparison_page;
use super::plots::{self, Tradeoff, TradeoffPoint};
use crate::error::{Error, Result};
use crate::metrics::{Doubt, Evaluation, ranks_better_than_chance, standard_deviation, t_interval};
use crate::system::files::{create_folder, write_atomic};
use crate::system::json::{read_json, write_json};
use crate::system::shown::Shown;
use crate::system::tables::write_csv;
use outcomes::VAL_PREDICTIONS;
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// The file of a run with its scores on the test images.
const EVALUATION: &str = "eval-test.json";

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Its name among the runs of the comparison.
    pub name: String,
    /// Its directory.
    pub folder: PathBuf,
    /// Its `run.json`.
    pub record: RunRecord,
}

/// A strategy with its finished runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// Its name.
    pub strategy: String,
    /// Which part of the backbone it changes: `no`, `last 3 blocks`, `adapters …`, `yes`.
    pub backbone_updated: String,
    /// Whether and how the head is fitted.
    pub head_updated: String,
    /// At most one for each repeat.
    pub finished: Vec<Finished>,
}

/// A run that the comparison lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name.
    pub run: String,
    /// Why.
    pub reason: String,
}

/// One row of the table. Shares are from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StrategyRow {
    /// The strategy.
    pub strategy: String,
    /// Which part of the backbone it changes.
    pub backbone_updated: String,
    /// Whether and how the head is fitted.
    pub head_updated: String,
    /// Trainable parameters.
    pub trainable_parameters: usize,
    /// All values.
    pub total_parameters: usize,
    /// Whether no run is missing. Only complete rows are tested and recommended.
    pub complete: bool,
    /// By the [`Measure`] of the comparison on validation images, over all runs; none when a run has none.
    pub val: Option<f64>,
    /// Its interval, as that of the test images.
    pub val_ci95: Option<[f64; 2]>,
    /// By the same measure on test images.
    pub test: f64,
    /// Over other test images like these; see [`Comparison::interval`].
    pub test_ci95: Option<[f64; 2]>,
    /// The share of right answers on test images, over all runs.
    pub test_accuracy: f64,
    /// Its interval.
    pub test_accuracy_ci95: Option<[f64; 2]>,
    /// Standard deviation of the runs' scores; none for one run.
    pub run_deviation: Option<f64>,
    /// The 95 % interval of the mean over all seeds on these images, by Student's t; none for one seed, and for folds,
    /// whose runs are not independent.
    pub seeds_ci95: Option<[f64; 2]>,
    /// Mean recall of the classes.
    pub balanced_accuracy: f64,
    /// Floating-point operations of a run alone, the mean over the runs: what is cheapest is decided by them. None when a run
    /// does not say, as those of older versions.
    pub operations: Option<f64>,
    /// Median wall time of a run alone, had it computed all features itself.
    pub seconds: f64,
    /// Median wall time as it was, with features that were in the cache.
    pub measured_seconds: f64,
    /// Largest resident memory of any run.
    pub peak_memory_bytes: Option<u64>,
    /// The formats that it can be exported to.
    pub exportable: Vec<&'static str>,
    /// The single runs.
    pub runs: Vec<RunScore>,
    /// Whether the order of every run's scores tells the classes of the test images apart better than chance.
    #[serde(skip)]
    tells: bool,
    /// Whether classes count by how common they are in any of the runs.
    #[serde(skip)]
    plain: bool,
    #[serde(skip)]
    outcomes: Outcomes,
    #[serde(skip)]
    val_outcomes: Option<Outcomes>,
}

/// One run of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunScore {
    /// Its name.
    pub name: String,
    /// Its directory.
    #[serde(serialize_with = "as_text")]
    pub folder: PathBuf,
    /// `run.seed`
    pub seed: u64,
    /// By the measure of the comparison on the test images of the run.
    pub test: f64,
    /// The share of right answers there.
    pub test_accuracy: f64,
    /// Wall time.
    pub seconds: f64,
    /// Largest resident memory.
    pub peak_memory_bytes: Option<u64>,
}

/// Two neighbours on the ladder, on the same images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The upper row.
    pub from: String,
    /// The lower one.
    pub to: String,
    /// Its score less that of the upper one.
    pub difference: f64,
    /// The p-value of the paired test.
    pub p_value: f64,
    /// Which test that is.
    pub test: String,
}

/// All strategies side by side; the content of `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The name of the config.
    pub name: String,
    /// Where everything lies.
    #[serde(serialize_with = "as_text")]
    pub folder: PathBuf,
    /// The pretrained weights.
    pub backbone: String,
    /// What was repeated.
    pub repeats: Repeats,
    /// What strategies are judged by.
    pub metric: Measure,
    /// Images that were tested on.
    pub test_images: usize,
    /// Groups of them; none without groups.
    pub test_groups: Option<usize>,
    /// What always naming the commonest class scores.
    pub majority_baseline: f64,
    /// What the 95 % intervals of the table are, in words.
    pub interval: String,
    /// The rows, as on the ladder.
    pub strategies: Vec<StrategyRow>,
    /// Neighbouring rows compared.
    pub tests: Vec<Pair>,
    /// The strategy to take.
    pub recommended: Option<String>,
    /// On which images it was chosen.
    pub recommended_by: Option<ChosenBy>,
    /// The formats that it can be exported to.
    pub exportable: Vec<&'static str>,
    /// Why this one, with its caveats, or why none.
    pub recommendation: Recommendation,
    /// What speaks against scores of the runs.
    pub doubts: Vec<Doubt>,
    /// Runs that are not there.
    pub missing: Vec<Missing>,
}

/// The name and the settings of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The name of the config.
    pub name: String,
    /// Where everything lies.
    pub folder: PathBuf,
    /// What is repeated.
    pub repeats: Repeats,
    /// The score that is wanted.
    pub target: Option<f64>,
}

impl Comparison {
    /// Puts finished runs side by side; contenders without any are left out.
    ///
    /// # Errors
    /// A usage error when nothing is finished; when the predictions of a run cannot be read.
    pub fn new(question: Question, contenders: &[Contender], missing: Vec<Missing>) -> Result<Self> {
        let Question { name, folder, repeats, target } = question;
        let (there, absent): (Vec<&Contender>, Vec<&Contender>) =
            contenders.iter().partition(|contender| !contender.finished.is_empty());
        let Some(first) = there.first().and_then(|contender| contender.finished.first()) else {
            return Err(nothing_finished(&folder, &missing));
        };
        let costs = cost::costs(&there.iter().map(|contender| contender.finished.as_slice()).collect::<Vec<_>>());
        let metric = choice::measured_by(&there)?;
        let row = |(contender, cost): (&&Contender, _)| StrategyRow::new(contender, cost, (repeats, metric));
        let rows = there.iter().zip(costs).map(row).collect::<Result<Vec<_>>>()?;
        let all =
            rows.iter().max_by_key(|row| row.outcomes.images()).map(|row| row.outcomes.clone()).unwrap_or_default();
        let tests = pairs(&rows, repeats, metric);
        let waiting: Vec<&str> = absent.iter().map(|contender| contender.strategy.as_str()).collect();
        let (recommendation, recommended_by) = choice::recommendation(&rows, &waiting, (repeats, metric), target);
        let recommended = recommendation.strategy.clone();
        let mut doubts: Vec<Doubt> = Vec::new();
        for doubt in there.iter().flat_map(|contender| &contender.finished).flat_map(|run| &run.record.doubts) {
            if !doubts.contains(doubt) {
                doubts.push(doubt.clone());
            }
        }
        let taken = rows.iter().find(|row| Some(&row.strategy) == recommended.as_ref());
        Ok(Self {
            name,
            folder,
            backbone: first.record.backbone.name.clone(),
            repeats,
            metric,
            test_images: all.images(),
            test_groups: all.groups(),
            majority_baseline: all.majority(),
            interval: text::interval(repeats, metric, all.images(), all.groups()),
            exportable: taken.map(|row| row.exportable.clone()).unwrap_or_default(),
            strategies: rows,
            tests,
            recommended,
            recommended_by,
            recommendation,
            doubts,
            missing,
        })
    }

    /// Writes `compare.json`, `compare.csv`, `compare.md`, the page `compare.html` and the picture `plots/compare`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self) -> Result<()> {
        create_folder(&self.folder)?;
        write_json(&self.folder.join("compare.json"), self)?;
        write_csv(&self.folder.join("compare.csv"), |table| self.rows(table))?;
        write_atomic(&self.folder.join("compare.md"), self.markdown().as_bytes())?;
        let picture = self.folder.join("plots/compare");
        plots::save(&self.picture(), &picture)?;
        let svg = picture.with_extension("svg");
        let svg = std::fs::read_to_string(&svg).map_err(Error::io("read", &svg))?;
        save_comparison_page(&self.folder.join("compare.html"), self.page(&svg))
    }

    fn picture(&self) -> Tradeoff {
        let point = |row: &StrategyRow| TradeoffPoint {
            name: row.strategy.clone(),
            seconds: row.seconds,
            score: row.test,
            interval: row.test_ci95,
            recommended: Some(&row.strategy) == self.recommended.as_ref(),
        };
        Tradeoff {
            title: format!("{}: {} and cost of each strategy", self.name, self.metric.in_words()),
            measure: self.metric.in_words(),
            subtitle: format!("{}, {}", self.backbone, self.counts()),
            points: self.strategies.iter().map(point).collect(),
        }
    }
}

impl StrategyRow {
    fn new(contender: &Contender, cost: cost::Cost, (repeats, metric): (Repeats, Measure)) -> Result<Self> {
        let mut outcomes = Outcomes::default();
        let mut val_outcomes = Some(Outcomes::default());
        let mut runs = Vec::new();
        for Finished { name, folder, record } in &contender.finished {
            let of_run = Outcomes::of_run(folder, PREDICTIONS)?;
            val_outcomes = match val_outcomes.take() {
                Some(mut all) if folder.join(VAL_PREDICTIONS).is_file() => {
                    all.add(Outcomes::of_run(folder, VAL_PREDICTIONS)?);
                    Some(all)
                }
                _ => None,
            };
            runs.push(RunScore {
                name: name.clone(),
                folder: folder.clone(),
                seed: record.seed,
                test: of_run.score(metric),
                test_accuracy: of_run.accuracy(),
                seconds: record.wall_seconds,
                peak_memory_bytes: record.peak_memory_bytes,
            });
            outcomes.add(of_run);
        }
        let scores: Vec<f64> = runs.iter().map(|run| run.test).collect();
        let last = contender.finished.last().map(|run| &run.record);
        Ok(Self {
            strategy: contender.strategy.clone(),
            backbone_updated: contender.backbone_updated.clone(),
            head_updated: contender.head_updated.clone(),
            trainable_parameters: last.map_or(0, |record| record.trainable_parameters),
            total_parameters: last.map_or(0, |record| record.total_parameters),
            complete: runs.len() == repeats.count(),
            val: val_outcomes.as_ref().map(|of| of.score(metric)),
            val_ci95: val_outcomes.as_ref().and_then(|of| of.interval(metric)),
            test: outcomes.score(metric),
            test_ci95: outcomes.interval(metric),
            test_accuracy: outcomes.accuracy(),
            test_accuracy_ci95: outcomes.interval(Measure::Accuracy),
            run_deviation: standard_deviation(&scores),
            seeds_ci95: matches!(repeats, Repeats::Seeds(_)).then(|| t_interval(&scores)).flatten(),
            balanced_accuracy: outcomes.balanced_accuracy(),
            operations: cost.operations,
            seconds: cost.alone,
            measured_seconds: cost.measured,
            peak_memory_bytes: runs.iter().filter_map(|run| run.peak_memory_bytes).max(),
            exportable: contender.finished.last().map(choice::formats).unwrap_or_default(),
            tells: contender.finished.iter().all(tells),
            plain: contender.finished.iter().any(choice::is_plain),
            runs,
            outcomes,
            val_outcomes,
        })
    }
}

/// Whether the order of the scores that a run has written down is better than chance.
fn tells(run: &Finished) -> bool {
    read_json(&run.folder.join(EVALUATION)).is_ok_and(|evaluation: Evaluation| ranks_better_than_chance(&evaluation))
}

/// Each complete row beside the next one.
fn pairs(rows: &[StrategyRow], repeats: Repeats, metric: Measure) -> Vec<Pair> {
    let complete: Vec<&StrategyRow> = rows.iter().filter(|row| row.complete).collect();
    let pair = |(from, to): (&&StrategyRow, &&StrategyRow)| Pair {
        from: from.strategy.clone(),
        to: to.strategy.clone(),
        difference: to.test - from.test,
        p_value: to.outcomes.p_value(&from.outcomes, metric),
        test: text::test(repeats, metric, to.outcomes.groups().is_some()),
    };
    complete.iter().zip(complete.iter().skip(1)).map(pair).collect()
}

fn nothing_finished(folder: &Path, missing: &[Missing]) -> Error {
    let reasons: String = missing.iter().map(|Missing { run, reason }| format!("\n  {run}: {reason}")).collect();
    Error::usage_hint(
        format!("no run of the comparison in {} is finished:{reasons}", folder.shown()),
        "start them with `vitadapt compare`, or one by one by the lines of `vitadapt compare --list`",
    )
}

/// A path as text, whatever its bytes.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.to_string_lossy())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
