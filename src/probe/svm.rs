//! Linear support vector machines with LIBLINEAR's objective (Fan et al., JMLR 9, 2008), one against the rest.
//!
//! For each class ½ (‖w‖² + β²) + C Σ sᵢ max(0, 1 − yᵢ (w·xᵢ + s β))², with the intercept s β penalised through
//! `intercept_scaling` s. Two classes have one vector. As in LIBLINEAR the weight of a class counts for its samples as
//! positives, and with two classes for both.
//!
//! The squared hinge has no second derivative at the margin; the generalised Hessian of Mangasarian (2002) takes its
//! place, and the machines of all classes are solved as one problem, so that their products are one.

use super::Samples;
use super::linear::{self, Fit, Intercept, total_weights};
use super::newton::{Loss, Stopping};
use crate::error::{Error, Result};
use crate::nn::kernels::simd;
use std::ops::Range;

/// Fits at each C of an ascending grid, each from the solution before, and hands the fits to `each` in turn. Objectives
/// are LIBLINEAR's divided by C S, summed over the classes.
///
/// # Errors
/// A data error when fewer than two classes or not all have samples; a usage error for a C, tolerance or
/// `intercept_scaling` out of range.
pub fn svm_path(
    samples: &Samples<'_>,
    grid: &[f64],
    intercept_scaling: f64,
    stopping: Stopping,
    each: &mut dyn FnMut(Fit) -> Result<()>,
) -> Result<()> {
    samples.check_classes()?;
    if !(intercept_scaling.is_finite() && intercept_scaling > 0.0) {
        let message = format!("an intercept scaling of {intercept_scaling} is out of range");
        return Err(Error::usage_hint(message, "a finite number above 0; 1 is the usual one"));
    }
    let loss = SquaredHinge::new(samples);
    linear::path(samples, &loss, Intercept::Scaled(intercept_scaling), grid, stopping, each)
}

/// s max(0, 1 − y z)² for each output.
struct SquaredHinge {
    outputs: usize,
    labels: Vec<usize>,
    sample_weights: Vec<f64>,
    class_weights: Vec<f64>,
    total: f64,
}

impl SquaredHinge {
    fn new(samples: &Samples<'_>) -> Self {
        Self {
            outputs: if samples.classes() == 2 { 1 } else { samples.classes() },
            labels: samples.labels().to_vec(),
            sample_weights: samples.sample_weights().to_vec(),
            class_weights: samples.class_weights().to_vec(),
            total: total_weights(samples).iter().sum(),
        }
    }

    /// The side a sample is on in the machine of `output`, and its weight there.
    fn target(&self, i: usize, output: usize) -> (f32, f32) {
        let label = self.labels[i];
        let positive = label == if self.outputs == 1 { 1 } else { output };
        let class_weight = if positive || self.outputs == 1 { self.class_weights[label] } else { 1.0 };
        (if positive { 1.0 } else { -1.0 }, (self.sample_weights[i] * class_weight / self.total) as f32)
    }
}

impl Loss for SquaredHinge {
    fn outputs(&self) -> usize {
        self.outputs
    }

    fn evaluate(&self, rows: Range<usize>, scores: &mut [f32], curvature: &mut [f32]) -> f64 {
        let mut loss = 0f64;
        let per_output = scores.chunks_exact_mut(rows.len()).zip(curvature.chunks_exact_mut(rows.len()));
        for (output, (scores, curvature)) in per_output.enumerate() {
            for ((z, h), i) in scores.iter_mut().zip(curvature).zip(rows.clone()) {
                let (side, weight) = self.target(i, output);
                let short = (1.0 - side * *z).max(0.0);
                loss += f64::from(weight) * f64::from(short) * f64::from(short);
                *h = if short > 0.0 { 2.0 * weight } else { 0.0 };
                *z = -2.0 * weight * side * short;
            }
        }
        loss
    }

    fn curve(&self, _rows: Range<usize>, curvature: &[f32], direction: &mut [f32]) {
        simd(|| direction.iter_mut().zip(curvature).for_each(|(d, h)| *d *= h));
    }

    fn add_diagonal(&self, rows: Range<usize>, curvature: &[f32], sums: &mut [f64]) {
        for (sum, h) in sums.iter_mut().zip(curvature.chunks_exact(rows.len())) {
            *sum += h.iter().map(|&h| f64::from(h)).sum::<f64>();
        }
    }
}
