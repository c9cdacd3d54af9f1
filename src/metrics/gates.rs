//! Quality gates: what a CI job asks of an evaluation.

use super::{Evaluation, Inspection, Robustness};
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

/// A gate that was asked for, and how it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// The metric and the flag with its bound: what is asked.
    pub name: String,
    /// Why it is missed; none when it holds.
    pub missed: Option<String>,
}

impl Gates {
    /// The gates that were asked for; an undefined metric misses its gate.
    pub fn check(&self, evaluation: &Evaluation, robustness: Option<&Robustness>) -> Vec<Gate> {
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

    fn inspection(&self, evaluation: &Evaluation) -> [Option<Gate>; 5] {
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

fn at_least(metric: &str, value: Option<f64>, flag: &str, bound: Option<f64>) -> Option<Gate> {
    bound.map(|bound| gate(metric, value, flag, bound, "below", |value, bound| value >= bound))
}

fn at_most(metric: &str, value: Option<f64>, flag: &str, bound: Option<f64>) -> Option<Gate> {
    bound.map(|bound| gate(metric, value, flag, bound, "above", |value, bound| value <= bound))
}

/// A gate is missed when `value` is undefined, not finite, or does not hold against `bound`; a bound that is NaN never
/// holds.
fn gate(metric: &str, value: Option<f64>, flag: &str, bound: f64, side: &str, holds: fn(f64, f64) -> bool) -> Gate {
    let missed = match value.filter(|value| value.is_finite()) {
        None => Some(format!("{metric} is undefined, which misses {flag} {bound}")),
        Some(value) if holds(value, bound) => None,
        Some(value) => Some(format!("{metric} {} is {side} {flag} {bound}", shown(value, bound))),
    };
    Gate { name: format!("{metric} ({flag} {bound})"), missed }
}

/// Four decimals, or all of them where four would hide the difference.
fn shown(value: f64, bound: f64) -> String {
    let short = (value * 1e4).round() / 1e4;
    if short == bound { value.to_string() } else { short.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InspectionSettings;
    use crate::metrics::{Rules, evaluate};

    fn evaluation() -> Evaluation {
        let classes = ["crack".to_owned(), "good".to_owned(), "never seen".to_owned()];
        let logits = [3.0_f32, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 2.0, 0.0];
        evaluate("test", &logits, &[0, 1, 0], &classes, 1.0, &[]).unwrap()
    }

    fn missed(gates: &Gates, evaluation: &Evaluation) -> Vec<String> {
        gates.check(evaluation, None).into_iter().filter_map(|gate| gate.missed).collect()
    }

    #[test]
    fn gates_that_are_met_say_so_and_others_are_not_there() {
        assert!(Gates::default().check(&evaluation(), None).is_empty());
        let exact = Gates { min_accuracy: Some(0.6), min_class_recall: Some(0.5), ..Gates::default() };
        let names = ["accuracy (--min-accuracy 0.6)", "recall of 'crack' (--min-class-recall 0.5)"];
        let gates = exact.check(&evaluation(), None);
        assert_eq!(gates[..2].iter().map(|gate| gate.name.as_str()).collect::<Vec<_>>(), names);
        assert!(gates.len() == 3 && gates.iter().all(|gate| gate.missed.is_none()), "{gates:?}");
    }

    #[test]
    fn missed_gates_name_value_flag_and_bound() {
        let gates = Gates {
            min_accuracy: Some(0.9),
            min_class_recall: Some(0.8),
            max_ece: Some(0.0001),
            min_mcc: Some(f64::NAN),
            ..Gates::default()
        };
        let lines = missed(&gates, &evaluation());
        assert_eq!(lines[0], "accuracy 0.6667 is below --min-accuracy 0.9");
        assert!(lines[1].starts_with("MCC ") && lines[1].ends_with("--min-mcc NaN"), "{lines:?}");
        assert!(lines[2].starts_with("ECE 0."), "{lines:?}");
        assert_eq!(lines[3], "recall of 'crack' 0.5 is below --min-class-recall 0.8");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_near_miss_shows_its_difference() {
        let close = Evaluation { accuracy: 0.899_999, ..evaluation() };
        let gates = Gates { min_accuracy: Some(0.9), ..Gates::default() };
        assert_eq!(missed(&gates, &close), ["accuracy 0.899999 is below --min-accuracy 0.9"]);
    }

    #[test]
    fn parts_are_judged_by_the_decision_that_predict_makes() {
        let classes = ["crack".to_owned(), "good".to_owned()];
        let settings = InspectionSettings { good: vec!["good".into()], ..InspectionSettings::default() };
        let rules = Rules::choose(&settings, &classes, None).unwrap().unwrap();
        let (logits, labels) = ([3.0_f32, 0.0, 0.0, 2.0, 0.0, 1.0], [0, 1, 0]);
        let plain = evaluate("test", &logits, &labels, &classes, 1.0, &[]).unwrap();
        let inspected = plain.clone().inspected(&logits, &labels, &classes, &[], &rules).unwrap();
        let gates = Gates {
            max_escape: Some(0.4),
            max_escape_upper: Some(0.99),
            max_overkill: Some(0.0),
            max_review: Some(0.0),
            max_escapes_ppm: Some(100.0),
            ..Gates::default()
        };
        assert!(gates.need_inspection() && !Gates::default().need_inspection());
        assert_eq!(
            missed(&gates, &inspected),
            [
                "escape rate 0.5 is above --max-escape 0.4",
                "escapes in a million parts is undefined, which misses --max-escapes-ppm 100"
            ]
        );
        assert_eq!(missed(&gates, &plain).len(), 5);
    }

    #[test]
    fn undefined_misses() {
        let gates = Gates { min_auroc: Some(0.5), ..Gates::default() };
        for auroc_macro in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            let single = Evaluation { auroc_macro, ..evaluation() };
            assert_eq!(missed(&gates, &single), ["macro AUROC is undefined, which misses --min-auroc 0.5"]);
        }
    }
}
