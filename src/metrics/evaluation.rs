//! All numbers of one split: the content of `eval-<split>.json`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::kinds::KindScore;
use super::{Confusion, Doubt, Inspection, Reliability, Rules, Scores, calibration, interval, mean, ranking};
use crate::error::{DataError, Result};

/// How a model scored on one split. The fields and their order are the file format of `eval-<split>.json`; what is
/// undefined is `null` there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The split or folder that was scored.
    pub split: String,
    /// Samples.
    pub n: usize,
    /// Right answers / samples.
    pub accuracy: f64,
    /// The 95 % interval of the accuracy; undefined when all samples share one group.
    pub accuracy_ci95: Option<[f64; 2]>,
    /// The accuracy of always answering the split's most frequent class.
    pub majority_baseline: f64,
    /// Mean recall of the classes that have samples.
    pub balanced_accuracy: f64,
    /// Mean F1 of the classes that occur among labels or predictions.
    pub macro_f1: f64,
    /// Mean F1 weighted by samples.
    pub weighted_f1: f64,
    /// One entry per class, in label order.
    pub per_class: Vec<ClassReport>,
    /// Counts; rows are true classes, columns predicted ones.
    pub confusion: Vec<Vec<u64>>,
    /// Mean one-vs-rest AUROC of the classes where it is defined.
    pub auroc_macro: Option<f64>,
    /// Mean −ln p of the true class, in nats, before temperature scaling.
    pub nll: Option<f64>,
    /// Expected calibration error over 15 bins, before temperature scaling.
    pub ece: Option<f64>,
    /// The temperature fitted on validation; 1 = none.
    pub temperature: f64,
    /// The negative log-likelihood after temperature scaling.
    pub nll_calibrated: Option<f64>,
    /// The expected calibration error after temperature scaling.
    pub ece_calibrated: Option<f64>,
    /// Matthews' correlation coefficient.
    pub mcc: f64,
    /// Cohen's kappa; undefined when labels and predictions are one and the same class.
    pub kappa: Option<f64>,
    /// Probabilities against what came true; absent in files of older versions.
    pub reliability: Option<Reliability>,
    /// Escapes and overkill, when a good class is named.
    pub inspection: Option<Inspection>,
    /// How parts of each kind fared, where labels only say which are sound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindScore>,
    /// Why this is not an estimate of how the model does on images that it has not seen; empty when nothing speaks against it.
    #[serde(default)]
    pub doubts: Vec<Doubt>,
}

/// How one class was recognised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Its name.
    pub class: String,
    /// Right among those predicted as this class; 0 when there are none.
    pub precision: f64,
    /// Found among those of this class; 0 when there are none.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Samples of this class.
    pub support: u64,
    /// Groups of those samples, each of which counts once in tests; none where every sample is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<u64>,
    /// This class against the rest, by its probability; undefined when either side has no sample.
    pub auroc: Option<f64>,
    /// Area under the precision-recall steps; undefined when either side has no sample.
    pub average_precision: Option<f64>,
}

impl Evaluation {
    /// What its images are called in a sentence: validation, test.
    pub fn split_name(&self) -> &str {
        if self.split == "val" { "validation" } else { &self.split }
    }

    /// The name of the split's most frequent class, the first among equals.
    pub fn majority_class(&self) -> Option<&str> {
        let most = self.per_class.iter().map(|class| class.support).max()?;
        self.per_class.iter().find(|class| class.support == most).map(|class| class.class.as_str())
    }

    /// The 95 % interval of the balanced accuracy, put together from those of the recalls.
    pub fn balanced_accuracy_ci95(&self) -> Option<[f64; 2]> {
        let recall = |class: &ClassReport| {
            (class.recall, interval::clopper_pearson(class.independent_found(), class.independent()))
        };
        let recalls: Vec<_> = self.per_class.iter().filter(|class| class.support > 0).map(recall).collect();
        interval::mean_interval(&recalls, true)
    }
}

impl ClassReport {
    /// What its samples count as in tests: its groups, or the samples where each is its own.
    pub fn independent(&self) -> u64 {
        self.groups.unwrap_or(self.support)
    }

    /// How many of those were found, at the recall of the samples.
    pub fn independent_found(&self) -> u64 {
        (self.recall * self.independent() as f64).round() as u64
    }
}

/// Scores logits (n, k), row-major, against n labels, k = `classes.len()`.
///
/// `temperature` is the one fitted on validation ([`super::fit_temperature`]), 1 for none. `groups` names each sample's group
/// (none = its own) and widens the interval of the accuracy; it may be empty. A NaN logit is never a prediction and
/// makes what depends on probabilities undefined.
///
/// # Errors
/// [`DataError::Invalid`] when there are no samples, lengths disagree, a label is not a class, or the temperature is
/// not a positive number.
pub fn evaluate<T: Copy + Into<f64>>(
    split: &str,
    logits: &[T],
    labels: &[usize],
    classes: &[String],
    temperature: f64,
    groups: &[Option<&str>],
) -> Result<Evaluation> {
    if !(temperature.is_finite() && temperature > 0.0) {
        let message = format!("the temperature {temperature} cannot divide logits");
        return Err(DataError::invalid(message, "a temperature is a positive number; 1 changes nothing").into());
    }
    let scores = Scores::new(logits, labels, classes.len())?;
    let predicted = scores.predicted();
    let right: Vec<bool> = predicted.iter().zip(labels).map(|(p, label)| p == label).collect();
    let confusion = Confusion::new(labels, &predicted, classes.len());
    let per_class = class_reports(&scores, &confusion, classes, groups);
    Ok(Evaluation {
        split: split.to_owned(),
        n: scores.len(),
        accuracy: confusion.accuracy(),
        accuracy_ci95: interval::accuracy_interval(&right, groups),
        majority_baseline: confusion.majority_baseline(),
        balanced_accuracy: confusion.balanced_accuracy(),
        macro_f1: confusion.macro_f1(),
        weighted_f1: confusion.weighted_f1(),
        auroc_macro: mean(per_class.iter().filter_map(|class| class.auroc)),
        per_class,
        nll: calibration::nll(&scores, 1.0),
        ece: calibration::ece(&scores, 1.0),
        temperature,
        nll_calibrated: calibration::nll(&scores, temperature),
        ece_calibrated: calibration::ece(&scores, temperature),
        mcc: confusion.mcc(),
        kappa: confusion.kappa(),
        confusion: confusion.into_counts(),
        reliability: Some(Reliability::new(&scores, temperature)),
        inspection: None,
        kinds: Vec::new(),
        doubts: Vec::new(),
    })
}

impl Evaluation {
    /// The same with the outcome of `rules` on these images.
    ///
    /// # Errors
    /// A usage error when the rules are about other classes.
    pub fn inspected<T: Copy + Into<f64>>(
        self,
        logits: &[T],
        labels: &[usize],
        classes: &[String],
        groups: &[Option<&str>],
        rules: &Rules,
    ) -> Result<Self> {
        let scores = Scores::new(logits, labels, classes.len())?;
        let inspection = Inspection::new(&scores, self.temperature, classes, groups, rules)?;
        Ok(Self { inspection: Some(inspection), ..self })
    }
}

fn class_reports(
    scores: &Scores,
    confusion: &Confusion,
    classes: &[String],
    groups: &[Option<&str>],
) -> Vec<ClassReport> {
    let unit = interval::units(scores.len(), groups);
    let report = |(c, class): (usize, &String), column: &[f64], positive: &[bool]| {
        let support = confusion.support(c);
        let distinct: BTreeSet<usize> = unit.iter().zip(positive).filter(|(_, own)| **own).map(|(u, _)| *u).collect();
        ClassReport {
            class: class.clone(),
            precision: confusion.precision(c),
            recall: confusion.recall(c),
            f1: confusion.f1(c),
            support,
            groups: Some(distinct.len() as u64).filter(|groups| *groups < support),
            auroc: ranking::auroc(column, positive),
            average_precision: ranking::average_precision(column, positive),
        }
    };
    let each = classes.iter().enumerate().zip(scores.each_against_the_rest());
    each.map(|(class, (column, positive))| report(class, &column, &positive)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metrics::{clopper_pearson, fit_temperature};
    use serde_json::Value;

    // Printed by tests/fixtures/make_metric_fixtures.py with scikit-learn and SciPy.
    const REFERENCE: &str = include_str!("../../tests/fixtures/metrics.json");

    fn names(k: usize) -> Vec<String> {
        (0..k).map(|c| format!("class {c}")).collect()
    }

    /// Every number in `want` equals the one at the same place of `got`, to 1e-9.
    pub(in crate::metrics) fn assert_same(got: &Value, want: &Value, place: &str) {
        match (got, want) {
            (Value::Object(got), Value::Object(want)) => {
                want.iter().for_each(|(key, want)| assert_same(&got[key], want, &format!("{place}.{key}")));
            }
            (Value::Array(got), Value::Array(want)) => {
                assert_eq!(got.len(), want.len(), "{place}");
                got.iter().zip(want).enumerate().for_each(|(i, (g, w))| assert_same(g, w, &format!("{place}[{i}]")));
            }
            (Value::Number(g), Value::Number(w)) => {
                let (g, w) = (g.as_f64().unwrap(), w.as_f64().unwrap());
                assert!((g - w).abs() <= 1e-9, "{place}: {g} is not {w}");
            }
            _ => assert_eq!(got, want, "{place}"),
        }
    }

    #[test]
    fn equals_scikit_learn() {
        let cases: Value = serde_json::from_str(REFERENCE).unwrap();
        for case in cases["cases"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            let logits: Vec<f64> = serde_json::from_value(case["logits"].clone()).unwrap();
            let labels: Vec<usize> = serde_json::from_value(case["labels"].clone()).unwrap();
            let k = logits.len() / labels.len();
            let temperature = case["expected"]["temperature"].as_f64().unwrap();
            let evaluation = evaluate(name, &logits, &labels, &names(k), temperature, &[]).unwrap();
            assert_same(&serde_json::to_value(evaluation).unwrap(), &case["expected"], name);
            // SciPy's minimiser stops at the square root of the rounding error.
            let fitted = fit_temperature(&Scores::new(&logits, &labels, k).unwrap());
            assert!((fitted / temperature - 1.0).abs() < 1e-5, "{name}: {fitted} is not {temperature}");
        }
    }

    #[test]
    fn clopper_pearson_equals_scipy() {
        let cases: Value = serde_json::from_str(REFERENCE).unwrap();
        for row in cases["clopper_pearson"].as_array().unwrap() {
            let got = clopper_pearson(row["successes"].as_u64().unwrap(), row["trials"].as_u64().unwrap());
            assert_same(&serde_json::to_value(got).unwrap(), &row["interval"], &row.to_string());
        }
    }

    #[test]
    fn the_file_format_is_a_contract() {
        let evaluation = evaluate("test", &[2.0_f32, 0.0, 0.0, 1.0], &[0, 0], &names(2), 1.0, &[]).unwrap();
        let json = serde_json::to_value(&evaluation).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let wanted = "split n accuracy accuracy_ci95 majority_baseline balanced_accuracy macro_f1 weighted_f1 per_class \
                      confusion auroc_macro nll ece temperature nll_calibrated ece_calibrated mcc kappa \
                      reliability inspection doubts";
        assert_eq!(keys, wanted.split_whitespace().collect::<Vec<_>>());
        let class: Vec<&String> = json["per_class"][0].as_object().unwrap().keys().collect();
        assert_eq!(class, ["class", "precision", "recall", "f1", "support", "auroc", "average_precision"]);
        assert!(json["auroc_macro"].is_null());
        assert_eq!(serde_json::from_value::<Evaluation>(json).unwrap(), evaluation);
    }

    #[test]
    fn nan_logits_are_wrong_or_undefined_but_never_a_panic() {
        let logits = [f32::NAN, f32::NAN, f32::NAN, 1.0, 0.0, 1.0];
        let evaluation = evaluate("test", &logits, &[1, 1, 0], &names(2), 1.5, &[]).unwrap();
        assert_eq!(evaluation.accuracy, 1.0 / 3.0);
        assert_eq!((evaluation.nll, evaluation.ece, evaluation.auroc_macro), (None, None, None));
        assert!(!serde_json::to_string(&evaluation).unwrap().contains("NaN"));
    }

    #[test]
    fn a_temperature_must_divide() {
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(evaluate("test", &[1.0_f32, 0.0], &[0], &names(2), temperature, &[]).is_err());
        }
    }
}
