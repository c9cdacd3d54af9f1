//! Quality gates: what a CI job asks of an evaluation.

use crate::metrics::{Evaluation, Inspection, Robustness};
use crate::report::junit::TestCase;
use clap::Args;

/// Thresholds for CI, as arguments of a command line: a gate is named by its flag. None = not asked for. Probabilities are
/// judged as the model gave them, before temperature scaling.
#[derive(Debug, Clone, Copy, PartialEq, Default, Args)]
#[command(next_help_heading = "Quality gates (exit code 8 when missed)")]
pub struct Gates {
    /// Lowest accuracy, from 0 to 1
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub min_accuracy: Option<f64>,
    /// Lowest mean of the recalls
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub min_balanced_accuracy: Option<f64>,
    /// Lowest unweighted mean of the F1 scores
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub min_macro_f1: Option<f64>,
    /// Lowest recall of any class
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub min_class_recall: Option<f64>,
    /// Lowest mean one-vs-rest area under the ROC curve
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub min_auroc: Option<f64>,
    /// Lowest Matthews correlation, from -1 to 1
    #[arg(long, value_name = "X", value_parser = correlation, allow_negative_numbers = true)]
    pub min_mcc: Option<f64>,
    /// Highest negative log-likelihood in nats, before calibration
    #[arg(long, value_name = "X", value_parser = non_negative)]
    pub max_nll: Option<f64>,
    /// Highest expected calibration error, before calibration: not that of the probabilities which predict prints
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub max_ece: Option<f64>,
    /// Lowest mean accuracy over flaws and strengths, with --corrupt
    #[arg(long, value_name = "X", value_parser = fraction, requires = "corrupt")]
    pub min_corrupt_accuracy: Option<f64>,
    /// Highest share of defective parts that are accepted, when the run has a good class
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub max_escape: Option<f64>,
    /// Highest upper end of the 95 % interval of that share: what the images prove
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub max_escape_upper: Option<f64>,
    /// Highest share of good parts that are rejected
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub max_overkill: Option<f64>,
    /// Highest share of parts that a person has to look at
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub max_review: Option<f64>,
    /// Most escapes in a million parts, for a run with inspection.prevalence
    #[arg(long, value_name = "N", value_parser = non_negative)]
    pub max_escapes_ppm: Option<f64>,
}

impl Gates {
    /// The gates that were asked for, as tests named after the metric and the flag with its bound; an undefined metric
    /// misses its gate.
    pub fn check(&self, evaluation: &Evaluation, robustness: Option<&Robustness>) -> Vec<TestCase> {
        let e = evaluation;
        let overall = [
            at_least("accuracy", Some(e.accuracy), "--min-accuracy", self.min_accuracy),
            at_least(
                "balanced accuracy",
                Some(e.balanced_accuracy),
                "--min-balanced-accuracy",
                self.min_balanced_accuracy,
            ),
            at_least("macro F1", Some(e.macro_f1), "--min-macro-f1", self.min_macro_f1),
            at_least("macro AUROC", e.auroc_macro, "--min-auroc", self.min_auroc),
            at_least("MCC", Some(e.mcc), "--min-mcc", self.min_mcc),
            at_most("NLL", e.nll, "--max-nll", self.max_nll),
            at_most("ECE", e.ece, "--max-ece", self.max_ece),
        ];
        let recalls = e.per_class.iter().filter(|class| class.support > 0).map(|class| {
            let metric = format!("recall of '{}'", class.class);
            at_least(&metric, Some(class.recall), "--min-class-recall", self.min_class_recall)
        });
        let under_flaws = robustness.map(|robustness| {
            let mean = Some(robustness.mean_accuracy);
            at_least("mean accuracy under flaws", mean, "--min-corrupt-accuracy", self.min_corrupt_accuracy)
        });
        overall.into_iter().chain(recalls).chain(self.inspection(e)).chain(under_flaws).flatten().collect()
    }

    /// Whether a gate is set that needs an inspection.
    pub fn need_inspection(&self) -> bool {
        let gates = [self.max_escape, self.max_escape_upper, self.max_overkill, self.max_review, self.max_escapes_ppm];
        gates.iter().any(Option::is_some)
    }

    fn inspection(&self, evaluation: &Evaluation) -> [Option<TestCase>; 5] {
        let outcome = evaluation.inspection.as_ref().and_then(Inspection::decided);
        let escape = outcome.map(|outcome| outcome.escape);
        let upper = escape.and_then(|escape| escape.ci95).map(|[_, high]| high);
        let overkill = outcome.and_then(|outcome| outcome.overkill.rate);
        let ppm = outcome.and_then(|outcome| outcome.escapes_ppm.value);
        // Without a band nothing is reviewed.
        let review = evaluation.inspection.as_ref().and_then(|i| i.band.map_or(Some(0.0), |band| band.review.rate));
        [
            at_most("escape rate", escape.and_then(|escape| escape.rate), "--max-escape", self.max_escape),
            at_most("upper bound of the escape rate", upper, "--max-escape-upper", self.max_escape_upper),
            at_most("overkill rate", overkill, "--max-overkill", self.max_overkill),
            at_most("share of parts to review", review, "--max-review", self.max_review),
            at_most("escapes in a million parts", ppm, "--max-escapes-ppm", self.max_escapes_ppm),
        ]
    }
}

/// A number from `low` to `high`, for clap.
fn within(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (low..=high).contains(&value) { Ok(value) } else { Err(format!("{value} is not between {low} and {high}")) }
}

/// A share from 0 to 1, for clap.
///
/// # Errors
/// When it is none.
pub fn fraction(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1.0)
}

fn correlation(text: &str) -> Result<f64, String> {
    within(text, -1.0, 1.0)
}

fn non_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("{text:?} is not a number of at least 0")),
    }
}

fn at_least(metric: &str, value: Option<f64>, flag: &str, bound: Option<f64>) -> Option<TestCase> {
    bound.map(|bound| gate(metric, value, flag, bound, "below", |value, bound| value >= bound))
}

fn at_most(metric: &str, value: Option<f64>, flag: &str, bound: Option<f64>) -> Option<TestCase> {
    bound.map(|bound| gate(metric, value, flag, bound, "above", |value, bound| value <= bound))
}

/// A gate is missed when `value` is undefined, not finite, or does not hold against `bound`; a bound that is NaN never
/// holds.
fn gate(metric: &str, value: Option<f64>, flag: &str, bound: f64, side: &str, holds: fn(f64, f64) -> bool) -> TestCase {
    let failure = match value.filter(|value| value.is_finite()) {
        None => Some(format!("{metric} is undefined, which misses {flag} {bound}")),
        Some(value) if holds(value, bound) => None,
        Some(value) => Some(format!("{metric} {} is {side} {flag} {bound}", shown(value, bound))),
    };
    TestCase { name: format!("{metric} ({flag} {bound})"), failure }
}

/// Four decimals, or all of them where four would hide the difference.
fn shown(value: f64, bound: f64) -> String {
    let short = (value * 1e4).round() / 1e4;
    if short == bound { value.to_string() } else { short.to_string() }
}

#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;
