//! Multinomial logistic regression with scikit-learn's objective.
//!
//! (1/S) Σ sᵢ ℓᵢ + ‖W‖² / (2 C S), S = Σ sᵢ, where sᵢ is the weight of the class of sample i. The intercept is
//! not penalised and features are not standardised. Two classes have one vector and the binomial loss: a softmax over
//! two vectors would be the same model at half the C.

use super::Samples;
use super::linear::{self, FitSink, total_weights};
use super::newton::{ScoreLoss, Stopping};
use crate::error::Result;
use crate::kernels::{math, simd};
use std::ops::Range;

/// Fits at each C of an ascending grid, each from the solution before, and hands the fits to `each` in turn.
///
/// # Errors
/// A data error when fewer than two classes or not all have samples; a usage error for a C out of range.
pub fn logistic_path(samples: &Samples<'_>, grid: &[f64], stopping: Stopping, each: FitSink<'_>) -> Result<()> {
    samples.check_classes()?;
    let weights = total_weights(samples);
    let total: f64 = weights.iter().sum();
    let weights = weights.iter().map(|weight| (weight / total) as f32).collect();
    let labels = samples.labels();
    if samples.classes() == 2 {
        let signs = labels.iter().map(|&label| if label == 1 { 1.0 } else { -1.0 }).collect();
        linear::path(samples, &[BinomialLoss { signs, weights }], true, grid, stopping, each)
    } else {
        let labels = labels.iter().map(|&label| label as u32).collect();
        let loss = SoftmaxLoss { labels, weights, classes: samples.classes() };
        linear::path(samples, &[loss], true, grid, stopping, each)
    }
}

/// ln(1 + e^(−y z)) with y = ±1. Its second derivative is p (1 − p).
struct BinomialLoss {
    signs: Vec<f32>,
    weights: Vec<f32>,
}

impl ScoreLoss for BinomialLoss {
    fn evaluate(&self, rows: Range<usize>, scores: &mut [f32], curvature: &mut [f32]) -> f64 {
        let (signs, weights) = (&self.signs[rows.clone()], &self.weights[rows]);
        let mut loss = 0f64;
        for ((z, h), (&y, &s)) in scores.iter_mut().zip(curvature).zip(signs.iter().zip(weights)) {
            let margin = f64::from(y * *z);
            // Written by the probability of the other class, which keeps its digits when it is small.
            let small = (-margin.abs()).exp();
            let wrong = if margin > 0.0 { small } else { 1.0 } / (1.0 + small);
            loss += f64::from(s) * ((-margin).max(0.0) + small.ln_1p());
            *h = s * (wrong * (1.0 - wrong)) as f32;
            *z = -y * s * wrong as f32;
        }
        loss
    }
}

/// Cross-entropy of a softmax. Its second derivatives are diag(p) − p pᵀ.
struct SoftmaxLoss {
    labels: Vec<u32>,
    weights: Vec<f32>,
    classes: usize,
}

impl ScoreLoss for SoftmaxLoss {
    fn outputs(&self) -> usize {
        self.classes
    }

    fn evaluate(&self, rows: Range<usize>, scores: &mut [f32], curvature: &mut [f32]) -> f64 {
        let (labels, weights) = (&self.labels[rows.clone()], &self.weights[rows]);
        let n = labels.len();
        let mut largest = vec![f32::NEG_INFINITY; n];
        let mut own = vec![0f32; n];
        // Sum of e^(z − max) over the other classes: near 0 for a sample that is surely right, so that neither the
        // loss nor the derivative loses digits to 1 − p.
        let mut others = vec![0f32; n];
        let mut own_exp = vec![0f32; n];
        simd(|| {
            for row in scores.chunks_exact(n) {
                largest.iter_mut().zip(row).for_each(|(most, &z)| *most = most.max(z));
            }
            for (class, row) in scores.chunks_exact_mut(n).enumerate() {
                for i in 0..n {
                    let e = math::exp(row[i] - largest[i]);
                    let mine = labels[i] == class as u32;
                    own[i] = if mine { row[i] } else { own[i] };
                    own_exp[i] = if mine { e } else { own_exp[i] };
                    others[i] += if mine { 0.0 } else { e };
                    row[i] = e;
                }
            }
            for (class, (row, p)) in scores.chunks_exact_mut(n).zip(curvature.chunks_exact_mut(n)).enumerate() {
                for i in 0..n {
                    let share = 1.0 / (own_exp[i] + others[i]);
                    p[i] = row[i] * share;
                    row[i] = weights[i] * if labels[i] == class as u32 { -others[i] * share } else { p[i] };
                }
            }
        });
        let log_sum = |i: usize| {
            let (own_exp, others) = (f64::from(own_exp[i]), f64::from(others[i]));
            if own[i] == largest[i] { others.ln_1p() } else { (own_exp + others).ln() }
        };
        (0..n).map(|i| f64::from(weights[i]) * (f64::from(largest[i]) - f64::from(own[i]) + log_sum(i))).sum()
    }

    fn curve(&self, rows: Range<usize>, curvature: &[f32], direction: &mut [f32]) {
        let weights = &self.weights[rows];
        let n = weights.len();
        let mut mean = vec![0f32; n];
        simd(|| {
            for (p, d) in curvature.chunks_exact(n).zip(direction.chunks_exact(n)) {
                mean.iter_mut().zip(p.iter().zip(d)).for_each(|(mean, (p, d))| *mean += p * d);
            }
            for (p, d) in curvature.chunks_exact(n).zip(direction.chunks_exact_mut(n)) {
                for i in 0..n {
                    d[i] = weights[i] * p[i] * (d[i] - mean[i]);
                }
            }
        });
    }

    fn add_diagonal(&self, rows: Range<usize>, curvature: &[f32], sums: &mut [f64]) {
        let weights = &self.weights[rows];
        for (sum, p) in sums.iter_mut().zip(curvature.chunks_exact(weights.len())) {
            *sum += p.iter().zip(weights).map(|(&p, &s)| f64::from(s * p * (1.0 - p))).sum::<f64>();
        }
    }
}
