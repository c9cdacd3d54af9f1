//! The comparison in words and tables: for a terminal, in Markdown, as CSV.

use super::recommend::sentence_case;
use super::{Comparison, Measure, Outcomes, Pair, Repeats, StrategyRow};
use crate::metrics::PATTERNS;
use crate::report::forecast::elapsed;
use crate::report::html::ComparisonPage;
use crate::report::table::{optional_percent, within};
use crate::report::{listing_table, mebibytes, percent, thousands};
use crate::system::shown::{Shown, agree, counted};
use crate::system::tables::Table;

/// The columns on the left; numbers follow.
const WORDS: usize = 3;

impl Comparison {
    /// The table with what it means, for a terminal.
    pub fn table(&self) -> String {
        let (header, rows) = self.cells();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut parts = vec![listing_table(WORDS, &header, &rows), self.notes().join("\n")];
        parts.extend(self.recommended.as_ref().map(|strategy| format!("recommended: {strategy}")));
        parts.push(sentence_case(&self.recommendation.sentence));
        parts.extend(self.missing_lines().map(|lines| lines.join("\n")));
        parts.push(self.folder.shown());
        parts.join("\n\n")
    }

    /// The same in Markdown.
    pub fn markdown(&self) -> String {
        let (header, rows) = self.cells();
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let rule: Vec<String> = (0..header.len()).map(|i| if i < WORDS { "---" } else { "---:" }.to_owned()).collect();
        let bold = |row: &Vec<String>| {
            let marked = self.recommended.is_some() && row.first() == self.recommended.as_ref();
            line(&row.iter().map(|cell| if marked { format!("**{cell}**") } else { cell.clone() }).collect::<Vec<_>>())
        };
        let table: Vec<String> = [line(&header), line(&rule)].into_iter().chain(rows.iter().map(bold)).collect();
        let mut parts = vec![format!("# {}: {}", self.name, self.counts()), table.join("\n")];
        parts.push(self.conclusion("**"));
        parts.push(format!("![{} against wall time](plots/compare.png)", self.metric.in_words()));
        parts.push(self.notes().iter().map(|note| format!("- {note}")).collect::<Vec<_>>().join("\n"));
        parts.extend(self.missing_lines().map(|lines| {
            let (title, runs) = lines.split_first().map_or(("", [].as_slice()), |(title, runs)| (title.as_str(), runs));
            let runs: String = runs.iter().map(|run| format!("\n- {}", run.trim())).collect();
            format!("{title}\n{runs}")
        }));
        format!("{}\n", parts.join("\n\n"))
    }

    /// The same as a page.
    pub(super) fn page<'a>(&self, picture: &'a str) -> ComparisonPage<'a> {
        let (header, rows) = self.cells();
        ComparisonPage {
            title: self.name.clone(),
            subtitle: format!("{}, {}", self.backbone, self.counts()),
            header,
            rows,
            conclusion: self.conclusion(""),
            notes: self.notes().into_iter().chain(self.missing_lines().into_iter().flatten()).collect(),
            measure: self.metric.in_words(),
            picture,
        }
    }

    /// Which strategy to take, between such marks, and why.
    fn conclusion(&self, mark: &str) -> String {
        let taken = self.recommended.as_ref().map(|taken| format!("{mark}Recommended: {taken}.{mark} "));
        format!("{}{}.", taken.unwrap_or_default(), sentence_case(&self.recommendation.sentence))
    }

    /// One row per strategy, in numbers; empty = undefined.
    pub(super) fn rows(&self, table: &mut Table) -> csv::Result<()> {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let bounds = |interval: Option<[f64; 2]>| [0, 1].map(|side| number(interval.map(|bounds| bounds[side])));
        for (i, row) in self.strategies.iter().enumerate() {
            let [low, high] = bounds(row.test_accuracy_ci95);
            let [seeds_low, seeds_high] = bounds(row.seeds_ci95);
            let validated = row.val_outcomes.as_ref();
            let [val_low, val_high] = bounds(validated.and_then(|of| of.interval(Measure::Accuracy)));
            let [judged_val_low, judged_val_high] = bounds(row.val_ci95);
            let [judged_low, judged_high] = bounds(row.test_ci95);
            let (names, cells): (Vec<&str>, Vec<String>) = [
                ("strategy", row.strategy.clone()),
                ("backbone_updated", row.backbone_updated.clone()),
                ("head_updated", row.head_updated.clone()),
                ("trainable_parameters", row.trainable_parameters.to_string()),
                ("runs", row.runs.len().to_string()),
                ("test_accuracy", row.test_accuracy.to_string()),
                ("ci95_low", low),
                ("ci95_high", high),
                ("run_deviation", number(row.run_deviation)),
                ("seeds_ci95_low", seeds_low),
                ("seeds_ci95_high", seeds_high),
                ("balanced_accuracy", row.balanced_accuracy.to_string()),
                ("operations", number(row.operations)),
                ("seconds", row.seconds.to_string()),
                ("measured_seconds", row.measured_seconds.to_string()),
                ("peak_memory_bytes", row.peak_memory_bytes.map_or(String::new(), |bytes| bytes.to_string())),
                ("p_value", number(self.pair_to(row).map(|pair| pair.p_value))),
                ("recommended", (self.recommended.as_ref() == Some(&row.strategy)).to_string()),
                ("val_accuracy", number(validated.map(Outcomes::accuracy))),
                ("val_ci95_low", val_low),
                ("val_ci95_high", val_high),
                ("exportable", row.exportable.join(" ")),
                ("metric", self.metric.in_words().to_owned()),
                ("judged_val", number(row.val)),
                ("judged_val_ci95_low", judged_val_low),
                ("judged_val_ci95_high", judged_val_high),
                ("judged_test", row.test.to_string()),
                ("judged_test_ci95_low", judged_low),
                ("judged_test_ci95_high", judged_high),
            ]
            .into_iter()
            .unzip();
            if i == 0 {
                table.write_record(&names)?;
            }
            table.write_record(&cells)?;
        }
        Ok(())
    }

    /// Images and repeats, as in `90 test images, 3 seeds`.
    pub(super) fn counts(&self) -> String {
        let repeats = match self.repeats {
            Repeats::Seeds(1) => String::new(),
            repeats => format!(", {} {}", repeats.count(), repeats.noun()),
        };
        format!("{}{repeats}", counted(self.test_images, "test image"))
    }

    /// The test of a row against the one above it.
    fn pair_to(&self, row: &StrategyRow) -> Option<&Pair> {
        self.tests.iter().find(|pair| pair.to == row.strategy)
    }

    /// Header and cells. The spread over runs has a column where there are several. The score that decides stands beside its
    /// interval, the other one after it.
    fn cells(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let several = self.repeats.count() > 1;
        let validated = self.strategies.iter().any(|row| row.val.is_some());
        let spread = format!("± {}", self.repeats.noun());
        let least = self.strategies.iter().filter_map(|row| row.operations).reduce(f64::min).unwrap_or(1.0);
        let row = |row: &StrategyRow| {
            let (judged, other) = match self.metric {
                Measure::Accuracy => ("accuracy", ("balanced", row.balanced_accuracy)),
                Measure::BalancedAccuracy => ("balanced", ("accuracy", row.test_accuracy)),
            };
            let name = if row.complete { row.strategy.clone() } else { format!("{} (incomplete)", row.strategy) };
            let mut cells = vec![
                ("strategy", name),
                ("backbone updated", row.backbone_updated.clone()),
                ("head updated", row.head_updated.clone()),
                ("trainable", thousands(row.trainable_parameters)),
            ];
            cells.extend(validated.then(|| ("validation", optional_percent(row.val))));
            cells.push((judged, percent(row.test)));
            cells.push(("95 % interval", row.test_ci95.map_or("-".into(), within)));
            let deviation = || row.run_deviation.map_or("-".into(), |deviation| format!("{:.1}", 100.0 * deviation));
            cells.extend(several.then(|| (spread.as_str(), deviation())));
            cells.extend([
                (other.0, percent(other.1)),
                ("p", self.pair_to(row).map_or("-".into(), |pair| p_value(pair.p_value))),
                ("work", row.operations.map_or("-".into(), |operations| format!("{:.1} x", operations / least))),
                ("time", elapsed(row.seconds)),
                ("peak memory", row.peak_memory_bytes.map_or("-".into(), mebibytes)),
            ]);
            cells.into_iter().map(|(name, cell)| (name.to_owned(), cell)).unzip()
        };
        let (mut headers, rows): (Vec<Vec<String>>, Vec<Vec<String>>) = self.strategies.iter().map(row).unzip();
        (headers.pop().unwrap_or_default(), rows)
    }

    /// What the columns are.
    fn notes(&self) -> Vec<String> {
        let doubts = self.doubts.iter().map(|doubt| format!("doubtful: {}", doubt.sentence));
        let mut notes: Vec<String> = doubts.collect();
        notes.push(match self.metric {
            Measure::Accuracy => format!("accuracy: on the test images; 95 % interval: {}", self.interval),
            Measure::BalancedAccuracy => format!(
                "balanced: mean recall of the classes on the test images, which strategies are judged by, on validation \
                 too; 95 % interval: {}",
                self.interval
            ),
        });
        if self.repeats.count() > 1 {
            notes.push(spread(self.repeats).into());
        }
        if let Some(pair) = self.tests.first() {
            notes.push(format!(
                "p: of no difference from the row above ({}), not corrected for the number of rows",
                pair.test
            ));
        }
        notes.push(
            "work: floating-point operations of one run alone, as a multiple of the least; it decides which strategy is \
             cheaper, since times depend on what else the machine had to do"
                .into(),
        );
        let middle = if self.repeats.count() > 1 { ", median" } else { "" };
        notes.push(format!(
            "time: measured, of one run alone{middle}, features that it found in the cache counted at what they cost"
        ));
        notes
    }

    fn missing_lines(&self) -> Option<Vec<String>> {
        let lines = self.missing.iter().map(|missing| format!("  {}: {}", missing.run, missing.reason));
        (!self.missing.is_empty()).then(|| std::iter::once("missing:".to_owned()).chain(lines).collect())
    }
}

/// What the intervals of the table are and what they do not include.
pub(super) fn interval(repeats: Repeats, metric: Measure, images: usize, groups: Option<usize>) -> String {
    let units = groups.map_or_else(
        || counted(images, "test image"),
        |groups| format!("{groups} {} of test images", agree(groups, "group", "groups")),
    );
    let exact = groups.is_none() && !matches!(repeats, Repeats::Seeds(2..));
    let over = format!("{} over the {units}", if exact { "Clopper-Pearson" } else { "bootstrap" });
    let over = match metric {
        Measure::Accuracy => over,
        Measure::BalancedAccuracy => format!("put together from those of the recalls (Zou and Donner 2008), {over}"),
    };
    match repeats {
        Repeats::Seeds(1) if exact => format!("{over}: the noise of which images are tested on, not that of training"),
        Repeats::Seeds(1) => format!("{over}: the noise of what is tested on, not that of training"),
        Repeats::Seeds(seeds) => {
            format!("{over} of the share of {seeds} seeds that are right: the noise of what is tested on")
        }
        Repeats::Folds(_) => format!(
            "{over}, each answered by the model that had not seen it; a little too narrow, since these models share \
             training images"
        ),
    }
}

/// The paired test that is made.
pub(super) fn test(repeats: Repeats, metric: Measure, grouped: bool) -> String {
    let units = if grouped { "groups of test images" } else { "test images" };
    let several = matches!(repeats, Repeats::Seeds(2..));
    let means = if several { " of the mean over seeds" } else { "" };
    match metric {
        Measure::Accuracy if grouped || several => format!("exact sign-flip test over {units}{means}"),
        Measure::Accuracy => format!("exact McNemar test over {units}"),
        Measure::BalancedAccuracy => {
            format!("sign-flip test over {units}{means}, weighed by class, {PATTERNS} patterns drawn")
        }
    }
}

fn spread(repeats: Repeats) -> &'static str {
    match repeats {
        Repeats::Seeds(_) => "± seeds: standard deviation over the seeds in points, the noise of training",
        Repeats::Folds(_) => "± folds: standard deviation over the folds in points, of their images and of training",
    }
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}
