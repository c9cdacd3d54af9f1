//! What the linear probes share: preparation of the features, and the path along C.

use super::design::Design;
use super::newton::{Evaluation, Loss, Objective, Solution, Stopping};
use super::rotation::Rotation;
use super::{Head, Samples};
use crate::error::{Error, Result};
use crate::linalg::Matrix;

/// The values of C that f32 features can tell apart from none and from infinite regularisation.
const C_RANGE: std::ops::RangeInclusive<f64> = 1e-10..=1e10;
const TOLERANCE_RANGE: std::ops::RangeInclusive<f64> = 1e-9..=0.1;

/// A linear classifier at one C.
#[derive(Debug, Clone)]
pub struct Fit {
    /// The inverse strength of the regularisation.
    pub c: f64,
    /// Weights and biases on raw features.
    pub head: Head,
    /// The objective, per unit of sample weight: (1/S) Σ s l + ‖W‖² / (2 C S).
    pub objective: f64,
    /// The largest absolute component of its gradient, by intercepts and centred features.
    pub gradient_norm: f64,
    /// Newton steps, from the solution at the next smaller C.
    pub iterations: usize,
    /// Products with the Hessian in these steps: where the time goes.
    pub products: usize,
    /// Whether the objective is within the tolerance; false when `max_iterations` ran out first.
    pub converged: bool,
}

/// How the intercept enters the objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Intercept {
    /// Free, so features may be centred: the optimum is the same and the Hessian better conditioned.
    Free,
    /// The weight of a constant feature of this value, penalised like the others.
    Scaled(f64),
}

/// Fits `loss` for each C of an ascending grid, from one solution to the next, and hands each fit to `each`.
///
/// The features are centred (free intercept), rotated to their rank when there are fewer samples than features, and
/// cut into blocks once for the whole path.
pub(super) fn path<L: Loss>(
    samples: &Samples<'_>,
    loss: &L,
    intercept: Intercept,
    grid: &[f64],
    stopping: Stopping,
    each: &mut dyn FnMut(Fit) -> Result<()>,
) -> Result<()> {
    check(grid, stopping)?;
    let prepared = Prepared::new(samples.features(), intercept == Intercept::Free)?;
    let weights = total_weights(samples);
    let total: f64 = weights.iter().sum();
    let squares = prepared.design.weighted_squares(|i| weights[i] / total);
    let mut solved: Vec<(f64, Vec<f64>)> = Vec::new();
    for &c in grid {
        let penalty = 1.0 / (c * total);
        let bias_penalty = match intercept {
            Intercept::Free => 0.0,
            Intercept::Scaled(scale) => penalty / (scale * scale),
        };
        let objective = Objective { design: &prepared.design, loss, penalty, bias_penalty, squares: &squares };
        let solution = objective.minimize(start(&objective, &solved, c)?, stopping)?;
        solved.push((c, solution.parameters.clone()));
        each(prepared.fit(c, solution)?)?;
    }
    Ok(())
}

/// The weight of each sample times that of its class.
pub(super) fn total_weights(samples: &Samples<'_>) -> Vec<f64> {
    let weights = samples.sample_weights().iter().zip(samples.labels());
    weights.map(|(weight, &label)| weight * samples.class_weights()[label]).collect()
}

/// Where to start: at the last solution, or on the line through the last two in ln C when that is lower. Along ln C
/// solutions move almost straight, most of all where classes are separable and weights grow without end.
fn start<L: Loss>(objective: &Objective<'_, L>, solved: &[(f64, Vec<f64>)], c: f64) -> Result<Evaluation> {
    let Some((last_c, last)) = solved.last() else {
        return objective.at(vec![0.0; objective.loss.outputs() * (objective.design.cols() + 1)]);
    };
    let here = objective.at(last.clone())?;
    let Some((before_c, before)) = solved.len().checked_sub(2).map(|i| &solved[i]) else { return Ok(here) };
    let ratio = (c / last_c).ln() / (last_c / before_c).ln();
    let ahead = objective.at(last.iter().zip(before).map(|(a, b)| a + ratio * (a - b)).collect())?;
    // Not a number compares as false: an overflowing guess is never taken.
    Ok(if ahead.value < here.value { ahead } else { here })
}

fn check(grid: &[f64], stopping: Stopping) -> Result<()> {
    let (low, high) = (C_RANGE.start(), C_RANGE.end());
    if grid.is_empty() {
        return Err(Error::usage_hint("there is no value of C to try", format!("C lies between {low:e} and {high:e}")));
    }
    if let Some(c) = grid.iter().find(|c| !C_RANGE.contains(c)) {
        return Err(Error::usage_hint(format!("C = {c} is out of range"), format!("between {low:e} and {high:e}")));
    }
    if grid.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Error::usage_hint("the values of C do not ascend", "sort them and name each once"));
    }
    if !TOLERANCE_RANGE.contains(&stopping.tolerance) {
        let (low, high) = (TOLERANCE_RANGE.start(), TOLERANCE_RANGE.end());
        let message = format!("a tolerance of {} cannot be kept", stopping.tolerance);
        return Err(Error::usage_hint(message, format!("between {low:e} and {high}")));
    }
    Ok(())
}

/// The features in the coordinates of the solver, and the way back.
struct Prepared {
    design: Design,
    /// What was subtracted from each raw feature; none when not centred.
    centre: Option<Vec<f64>>,
    rotation: Option<Rotation>,
}

impl Prepared {
    fn new(raw: Matrix<'_>, centred: bool) -> Result<Self> {
        let centre = centred.then(|| raw.means());
        let moved: Option<Vec<f32>> = centre.as_ref().map(|centre| {
            let rows = raw.values().chunks_exact(raw.cols());
            rows.flat_map(|row| row.iter().zip(centre).map(|(&x, m)| (f64::from(x) - m) as f32)).collect()
        });
        let features = moved.as_ref().map_or(raw, |moved| Matrix::new(moved, raw.cols()));
        let rotation = Rotation::pays(features).then(|| Rotation::new(features)).transpose()?;
        let design = Design::new(rotation.as_ref().map_or(features, Rotation::features));
        Ok(Self { design, centre, rotation })
    }

    fn fit(&self, c: f64, solution: Solution) -> Result<Fit> {
        let outputs = solution.parameters.len() / (self.design.cols() + 1);
        let (weight, bias) = solution.parameters.split_at(outputs * self.design.cols());
        let weight = match &self.rotation {
            Some(rotation) => rotation.back(weight)?,
            None => weight.to_vec(),
        };
        let cols = weight.len() / outputs;
        let shift = |row: &[f64]| match &self.centre {
            Some(centre) => row.iter().zip(centre).map(|(w, m)| w * m).sum::<f64>(),
            None => 0.0,
        };
        let bias: Vec<f64> = bias.iter().zip(weight.chunks_exact(cols)).map(|(b, row)| b - shift(row)).collect();
        Ok(Fit {
            c,
            head: Head::from_vectors(&weight, &bias),
            objective: solution.value,
            gradient_norm: solution.gradient_norm,
            iterations: solution.iterations,
            products: solution.products,
            converged: solution.converged,
        })
    }
}
