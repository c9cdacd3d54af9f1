//! Linear support vector machines with LIBLINEAR's objective (Fan et al., JMLR 9, 2008), one against the rest.
//!
//! For each class ½ (‖w‖² + β²) + C Σ sᵢ max(0, 1 − yᵢ (w·xᵢ + β))², with the intercept β penalised like the weights
//! (`intercept_scaling` 1). Two classes have one vector. As in LIBLINEAR the weight of a class counts for its samples as
//! positives, and with two classes for both.
//!
//! The squared hinge has no second derivative at the margin; the generalised Hessian of Mangasarian (2002) takes its
//! place. The machines are independent, so each takes its own steps and threads share them.

use super::Samples;
use super::linear::{self, FitSink, total_weights};
use super::newton::{ScoreLoss, Stopping};
use crate::error::Result;
use std::ops::Range;

/// Fits at each C of an ascending grid, each from the solution before, and hands the fits to `each` in turn. Objectives
/// are LIBLINEAR's divided by C S, summed over the classes.
///
/// # Errors
/// A data error when fewer than two classes or not all have samples.
pub fn svm_path(samples: &Samples<'_>, grid: &[f64], stopping: Stopping, each: FitSink<'_>) -> Result<()> {
    samples.check_classes()?;
    let total = total_weights(samples).iter().sum();
    let machines: Vec<SquaredHinge> = match samples.classes() {
        2 => vec![SquaredHinge::new(samples, 1, samples.class_weights()[0], total)],
        classes => (0..classes).map(|positive| SquaredHinge::new(samples, positive, 1.0, total)).collect(),
    };
    linear::path(samples, &machines, false, grid, stopping, each)
}

/// s max(0, 1 − y z)² of one machine.
struct SquaredHinge {
    /// ±1.
    sides: Vec<f32>,
    weights: Vec<f32>,
}

impl SquaredHinge {
    /// The machine of the class `positive` against the rest, whose class weight is `rest`.
    fn new(samples: &Samples<'_>, positive: usize, rest: f64, total: f64) -> Self {
        let class_weight = |label| if label == positive { samples.class_weights()[label] } else { rest };
        let labels = || samples.labels().iter();
        Self {
            sides: labels().map(|&label| if label == positive { 1.0 } else { -1.0 }).collect(),
            weights: labels().map(|&label| (class_weight(label) / total) as f32).collect(),
        }
    }
}

impl ScoreLoss for SquaredHinge {
    fn evaluate(&self, rows: Range<usize>, scores: &mut [f32], curvature: &mut [f32]) -> f64 {
        let (sides, weights) = (&self.sides[rows.clone()], &self.weights[rows]);
        let mut loss = 0f64;
        for ((z, h), (&side, &weight)) in scores.iter_mut().zip(curvature).zip(sides.iter().zip(weights)) {
            let short = (1.0 - side * *z).max(0.0);
            loss += f64::from(weight) * f64::from(short) * f64::from(short);
            *h = if short > 0.0 { 2.0 * weight } else { 0.0 };
            *z = -2.0 * weight * side * short;
        }
        loss
    }
}
