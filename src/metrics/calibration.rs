//! Whether probabilities are calibrated, and temperature scaling (Guo et al. 2017) to make them so.

use super::Scores;
use super::interval::clopper_pearson;
use super::scores::{argmax, log_sum_exp};
use serde::{Deserialize, Serialize};

/// The number of equally wide confidence bins of the calibration error and of reliability diagrams.
pub const ECE_BINS: usize = 15;

const TEMPERATURE_BOUNDS: [f64; 2] = [1e-5, 20.0];

/// The mean of −ln p(true class), in nats, with p the softmax of logits / temperature.
///
/// None when it is not finite: a NaN logit, or a true class of probability 0.
pub fn nll(scores: &Scores, temperature: f64) -> Option<f64> {
    let total: f64 = losses(scores, temperature).iter().sum();
    Some(total / scores.len() as f64).filter(|mean| mean.is_finite())
}

/// −ln p(true class) of each sample (n), in nats; NaN with a NaN logit.
pub fn losses(scores: &Scores, temperature: f64) -> Vec<f64> {
    scores.rows().map(|(row, label)| log_sum_exp(row, temperature) - row[label] / temperature).collect()
}

/// How confidence compares with accuracy, before and after temperature scaling: the content of a reliability
/// diagram (`DeGroot` and Fienberg 1983).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// The bins that have samples, of the probabilities as the model gives them; empty when a logit is NaN.
    pub before: Vec<ReliabilityBin>,
    /// Likewise after division by the temperature.
    pub after: Vec<ReliabilityBin>,
}

/// The samples whose confidence, the largest probability, is above `above` and at most `up_to`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// The lower end, not in the bin.
    pub above: f64,
    /// The upper end, in the bin.
    pub up_to: f64,
    /// Samples.
    pub count: u64,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that was answered right.
    pub accuracy: f64,
    /// Its exact 95 % interval, as of independent samples.
    pub accuracy_ci95: [f64; 2],
}

impl Reliability {
    /// Both sides of `temperature`.
    pub fn new(scores: &Scores, temperature: f64) -> Self {
        let bins = |temperature| reliability_bins(scores, temperature).unwrap_or_default();
        Self { before: bins(1.0), after: bins(temperature) }
    }
}

/// The bins with samples, of [`ECE_BINS`] equally wide ones. None when a logit is NaN.
fn reliability_bins(scores: &Scores, temperature: f64) -> Option<Vec<ReliabilityBin>> {
    let mut sums = [(0_u64, 0.0, 0_u64); ECE_BINS];
    for (row, label) in scores.rows() {
        let top = argmax(row);
        let confidence = (row[top] / temperature - log_sum_exp(row, temperature)).exp();
        if confidence.is_nan() {
            return None;
        }
        // A softmax may exceed 1 by a rounding error: that is still the last bin.
        let bin = (0..ECE_BINS - 1).find(|&bin| confidence <= edge(bin + 1)).unwrap_or(ECE_BINS - 1);
        let (count, total, right) = &mut sums[bin];
        (*count, *total, *right) = (*count + 1, *total + confidence, *right + u64::from(top == label));
    }
    let bin = |(bin, (count, total, right)): (usize, (u64, f64, u64))| ReliabilityBin {
        above: edge(bin),
        up_to: edge(bin + 1),
        count,
        confidence: total / count as f64,
        accuracy: right as f64 / count as f64,
        accuracy_ci95: clopper_pearson(right, count),
    };
    Some(sums.into_iter().enumerate().filter(|(_, sum)| sum.0 > 0).map(bin).collect())
}

fn edge(bin: usize) -> f64 {
    bin as f64 / ECE_BINS as f64
}

/// The expected calibration error: the mean of |accuracy − confidence| over the bins, weighted by their samples. None
/// when a logit is NaN.
pub(super) fn ece(scores: &Scores, temperature: f64) -> Option<f64> {
    let gap = |bin: &ReliabilityBin| bin.count as f64 * (bin.accuracy - bin.confidence).abs();
    Some(reliability_bins(scores, temperature)?.iter().map(gap).sum::<f64>() / scores.len() as f64)
}

/// The temperature that minimises the negative log-likelihood of validation logits, from 1e-5 to 20.
///
/// The likelihood is convex in 1 / T, so its slope changes sign once: the search halves an interval of ln T. When
/// every sample is right the likelihood has no minimum (ever sharper is ever better); then the true class counts as
/// 1 − 1/(n + 2) and the others share the rest, as Platt (1999) does for separable data, which keeps the confidence
/// at what n samples can support. Samples with a logit that is not finite are left out; without any sample T is 1.
pub fn fit_temperature(scores: &Scores) -> f64 {
    let rows: Vec<(&[f64], usize)> = scores.rows().filter(|(row, _)| row.iter().all(|x| x.is_finite())).collect();
    let informative = rows.iter().any(|(row, _)| row.iter().any(|x| *x != row[0]));
    if !informative {
        return 1.0;
    }
    let separable = rows.iter().all(|(row, label)| argmax(row) == *label);
    let smoothing = if separable { 1.0 / (rows.len() as f64 + 2.0) } else { 0.0 };
    let targets: f64 = rows.iter().map(|(row, label)| target_logit(row, *label, smoothing)).sum();
    // d NLL / d(1/T): negative while sharper probabilities would still help.
    let slope = |t: f64| rows.iter().map(|(row, _)| expected_logit(row, t)).sum::<f64>() - targets;
    bisect_log(TEMPERATURE_BOUNDS, |t| slope(t) < 0.0)
}

/// Where `too_high` changes from false to true between two positive bounds, halving the interval of the logarithm.
fn bisect_log([low, high]: [f64; 2], too_high: impl Fn(f64) -> bool) -> f64 {
    if too_high(low) {
        return low;
    }
    if !too_high(high) {
        return high;
    }
    let (mut low, mut high) = (low.ln(), high.ln());
    // ln(2e6) / 2^56 is below the rounding error of the sums.
    for _ in 0..56 {
        let middle = f64::midpoint(low, high);
        if too_high(middle.exp()) { high = middle } else { low = middle }
    }
    f64::midpoint(low, high).exp()
}

/// Σ targetᵢ xᵢ with 1 − smoothing on the true class and the rest spread evenly over the others.
fn target_logit(row: &[f64], label: usize, smoothing: f64) -> f64 {
    let others = row.iter().sum::<f64>() - row[label];
    let share = if row.len() > 1 { smoothing / (row.len() - 1) as f64 } else { 0.0 };
    (1.0 - share * (row.len() - 1) as f64) * row[label] + share * others
}

/// Σ pᵢ xᵢ with p the softmax of x / temperature.
fn expected_logit(row: &[f64], temperature: f64) -> f64 {
    let log_total = log_sum_exp(row, temperature);
    row.iter().map(|x| (x / temperature - log_total).exp() * x).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(logits: &[f64], labels: &[usize]) -> Scores {
        Scores::new(logits, labels, logits.len() / labels.len()).unwrap()
    }

    #[test]
    fn separable_data_stays_bounded() {
        for scale in [1e-3, 1.0, 1e3, 1e300] {
            let s = scores(&[scale, 0.0, 0.0, scale], &[0, 1]);
            let t = fit_temperature(&s);
            assert!((TEMPERATURE_BOUNDS[0]..=TEMPERATURE_BOUNDS[1]).contains(&t), "{scale}: {t}");
        }
        // n = 2: the confidence becomes 1 - 1/4, that is a log-odds of ln 3.
        let t = fit_temperature(&scores(&[2.0, 0.0, 0.0, 2.0], &[0, 1]));
        assert!((2.0 / t - 3.0_f64.ln()).abs() < 1e-9, "{t}");
    }

    #[test]
    fn useless_logits_leave_the_temperature_alone() {
        assert_eq!(fit_temperature(&scores(&[1.0, 1.0], &[0])), 1.0);
        assert_eq!(fit_temperature(&scores(&[f64::NAN, 1.0], &[0])), 1.0);
        assert_eq!(fit_temperature(&scores(&[3.0], &[0])), 1.0);
    }

    #[test]
    fn wrong_answers_are_flattened() {
        assert_eq!(fit_temperature(&scores(&[5.0, 0.0, 5.0, 0.0], &[1, 1])), TEMPERATURE_BOUNDS[1]);
    }

    #[test]
    fn nan_and_impossible_classes_are_undefined() {
        assert_eq!(nll(&scores(&[f64::NAN, 0.0], &[0]), 1.0), None);
        assert_eq!(ece(&scores(&[f64::NAN, 0.0], &[0]), 1.0), None);
        assert_eq!(nll(&scores(&[0.0, f64::NEG_INFINITY], &[1]), 1.0), None);
    }

    proptest! {
        #[test]
        fn the_fitted_temperature_is_a_minimum(
            logits in prop::collection::vec(-4.0..4.0_f64, 60),
            labels in prop::collection::vec(0..3_usize, 20),
        ) {
            let s = scores(&logits, &labels);
            prop_assume!(s.predicted() != labels);
            let t = fit_temperature(&s);
            let best = nll(&s, t).unwrap();
            for other in [0.05, 0.2, 0.9 * t, 1.0, 1.1 * t, 3.0, 20.0] {
                if (TEMPERATURE_BOUNDS[0]..=TEMPERATURE_BOUNDS[1]).contains(&other) {
                    prop_assert!(best <= nll(&s, other).unwrap() + 1e-12);
                }
            }
            prop_assert!((0.0..=1.0).contains(&ece(&s, t).unwrap()));
        }
    }
}
