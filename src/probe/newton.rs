//! Truncated Newton with conjugate gradients for penalised linear classifiers (Nocedal and Wright, Numerical
//! Optimization, chapter 7.1; for classifiers Lin, Weng and Keerthi, JMLR 9, 2008).
//!
//! Products run in f32, sums and parameters are f64. A direction needs few digits; what an error of the scores by one
//! f32 rounding does to the objective is of second order.

use super::design::Design;
use crate::error::Result;
use crate::kernels::simd;
use std::ops::Range;

/// A direction is good enough when its last product, times their number, gained less than this share of the whole: the
/// test of Nash and Sofer (Operations Research Letters 9, 1990), which foresees a slow start. At the usual tolerance.
const FORCING: f64 = 0.1;
const MOST_FORCING: f64 = 0.3;
const USUAL_TOLERANCE: f64 = 1e-6;
/// A conjugate-gradient solve that takes longer is cut short: a shorter direction is still one of descent.
const MOST_PRODUCTS: u32 = 1000;
/// Lengths of a step that are tried.
const MOST_LENGTHS: usize = 40;
/// What must remain of the slope at the end of a step.
const FLAT: f64 = 0.1;
/// What rounding of the scores may do to the objective, relative.
const NOISE: f64 = 1e-7;

/// A loss of linear scores, summed over samples with their weights, which add up to 1; of one score a sample unless it
/// says otherwise.
pub(super) trait ScoreLoss: Sync {
    /// Scores a sample.
    fn outputs(&self) -> usize {
        1
    }

    /// Replaces the scores (outputs, rows) of some rows by the derivatives of their loss, writes what [`Self::curve`]
    /// needs to `curvature` (outputs, rows), and returns the loss.
    fn evaluate(&self, rows: Range<usize>, scores: &mut [f32], curvature: &mut [f32]) -> f64;

    /// Replaces `direction` (outputs, rows), a change of the scores, by its product with the second derivatives.
    fn curve(&self, _rows: Range<usize>, curvature: &[f32], direction: &mut [f32]) {
        simd(|| direction.iter_mut().zip(curvature).for_each(|(d, h)| *d *= h));
    }

    /// Adds the diagonal of the second derivatives, summed over some rows, to `sums` (outputs).
    fn add_diagonal(&self, _rows: Range<usize>, curvature: &[f32], sums: &mut [f64]) {
        sums[0] += curvature.iter().map(|&h| f64::from(h)).sum::<f64>();
    }
}

/// A loss, the features it is of and the penalties: Σ s l + ½ penalty ‖W‖² + ½ `bias_penalty` ‖b‖².
pub(super) struct PenalizedLoss<'a, L> {
    pub design: &'a Design,
    pub loss: &'a L,
    pub penalty: f64,
    pub bias_penalty: f64,
    /// Weighted mean square of each feature (d): its share in the curvature.
    pub squares: &'a [f64],
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stopping {
    /// A solve ends with the step that is predicted to gain less than this share of the objective. This is not a bound on
    /// the gap to the optimum: on nearly singular problems, with about as many features as samples and a large C, the
    /// relative gap at 1e-6 was measured up to 2e-5 for logistic regression and 5e-3 for support vector machines. From
    /// 1e-9, what f32 products can tell, to 0.1.
    pub tolerance: f64,
    /// Newton steps for one value of C.
    pub max_iterations: usize,
}

impl Default for Stopping {
    fn default() -> Self {
        Self { tolerance: USUAL_TOLERANCE, max_iterations: 1000 }
    }
}

/// A minimum, or how far the steps went.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    pub parameters: Vec<f64>,
    pub value: f64,
    /// Newton steps.
    pub iterations: usize,
    /// Hessian-vector products.
    pub products: usize,
    pub converged: bool,
}

/// The objective at some parameters.
pub(super) struct Iterate {
    parameters: Vec<f64>,
    scores: Vec<f32>,
    derivatives: Vec<f32>,
    curvature: Vec<f32>,
    pub value: f64,
}

/// A step and what it promises.
struct Direction {
    step: Vec<f64>,
    /// Gradient times step: negative.
    slope: f64,
    products: usize,
}

impl<L: ScoreLoss> PenalizedLoss<'_, L> {
    /// The objective at `parameters`.
    pub(super) fn at(&self, parameters: Vec<f64>) -> Result<Iterate> {
        let scores = self.design.scores(&parameters, self.loss.outputs())?;
        Ok(self.evaluate(parameters, scores))
    }

    /// Newton steps from `start` until the stopping rule holds.
    pub(super) fn minimize(&self, start: Iterate, stopping: Stopping) -> Result<Solution> {
        let mut now = start;
        let (mut iterations, mut products, mut converged) = (0, 0, false);
        let mut gradient = self.gradient(&now)?;
        while !converged && iterations < stopping.max_iterations {
            let direction = self.direction(&now, &gradient, stopping.tolerance)?;
            products += direction.products;
            // Half the slope is what a quadratic model gains by the whole step.
            let gain = -0.5 * direction.slope;
            converged = gain <= stopping.tolerance * now.value;
            let Some(next) = self.search(&now, &direction)? else {
                converged |= gain <= NOISE * now.value;
                break;
            };
            (now, iterations) = (next, iterations + 1);
            gradient = self.gradient(&now)?;
        }
        Ok(Solution { parameters: now.parameters, value: now.value, iterations, products, converged })
    }

    fn evaluate(&self, parameters: Vec<f64>, scores: Vec<f32>) -> Iterate {
        let outputs = self.loss.outputs();
        let mut derivatives = scores.clone();
        let mut curvature = vec![0f32; scores.len()];
        let mut value = self.half_penalty(&parameters);
        for rows in self.design.ranges() {
            let span = rows.start * outputs..rows.end * outputs;
            value += self.loss.evaluate(rows, &mut derivatives[span.clone()], &mut curvature[span]);
        }
        Iterate { parameters, scores, derivatives, curvature, value }
    }

    /// Penalties of weights and intercepts, with the parameters they are of.
    fn penalties<'p>(&self, parameters: &'p [f64]) -> [(f64, &'p [f64]); 2] {
        let (weight, bias) = parameters.split_at(parameters.len() - self.loss.outputs());
        [(self.penalty, weight), (self.bias_penalty, bias)]
    }

    fn half_penalty(&self, parameters: &[f64]) -> f64 {
        self.penalties(parameters).iter().map(|(penalty, values)| 0.5 * penalty * dot(values, values)).sum()
    }

    fn add_penalty(&self, parameters: &[f64], to: &mut [f64]) {
        let mut rest = to;
        for (penalty, values) in self.penalties(parameters) {
            let (here, after) = rest.split_at_mut(values.len());
            add_scaled(here, penalty, values);
            rest = after;
        }
    }

    fn gradient(&self, at: &Iterate) -> Result<Vec<f64>> {
        let mut gradient = self.design.gradient(&at.derivatives, self.loss.outputs())?;
        self.add_penalty(&at.parameters, &mut gradient);
        Ok(gradient)
    }

    fn hessian_times(&self, at: &Iterate, direction: &[f64]) -> Result<Vec<f64>> {
        let outputs = self.loss.outputs();
        let mut product = self.design.curvature(direction, outputs, |rows, scores| {
            let curvature = &at.curvature[rows.start * outputs..rows.end * outputs];
            self.loss.curve(rows, curvature, scores);
        })?;
        self.add_penalty(direction, &mut product);
        Ok(product)
    }

    /// The inverse of the Hessian's diagonal, had every sample the mean curvature: makes the scale of a feature
    /// indifferent, at no cost.
    fn preconditioner(&self, at: &Iterate) -> Vec<f64> {
        let outputs = self.loss.outputs();
        let mut mean = vec![0f64; outputs];
        for rows in self.design.ranges() {
            let span = rows.start * outputs..rows.end * outputs;
            self.loss.add_diagonal(rows, &at.curvature[span], &mut mean);
        }
        // The floor keeps an unpenalised intercept finite when every sample is far beyond its margin.
        let inverse = |value: f64| value.max(f64::MIN_POSITIVE.sqrt()).recip();
        let weights = mean.iter().flat_map(|m| self.squares.iter().map(move |square| m * square + self.penalty));
        let biases = mean.iter().map(|m| m + self.bias_penalty);
        weights.chain(biases).map(inverse).collect()
    }

    /// Solves Hessian × step = −gradient by preconditioned conjugate gradients, about as well as it pays.
    fn direction(&self, at: &Iterate, gradient: &[f64], tolerance: f64) -> Result<Direction> {
        let inverse = self.preconditioner(at);
        let mut step = vec![0f64; gradient.len()];
        let mut residual: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut scaled = product(&inverse, &residual);
        let mut search = scaled.clone();
        let mut energy = dot(&residual, &scaled);
        let (mut gain, mut products) = (0f64, 0u32);
        // A closer optimum needs directions that are themselves more exact.
        let forcing = (FORCING * (tolerance / USUAL_TOLERANCE).powf(0.25)).min(MOST_FORCING);
        while products < MOST_PRODUCTS && energy > 0.0 {
            let curved = self.hessian_times(at, &search)?;
            products += 1;
            let curvature = dot(&search, &curved);
            if curvature <= 0.0 {
                break;
            }
            let length = energy / curvature;
            add_scaled(&mut step, length, &search);
            add_scaled(&mut residual, -length, &curved);
            let gained = 0.5 * length * energy;
            gain += gained;
            if f64::from(products) * gained <= forcing * gain.max(tolerance * at.value) {
                break;
            }
            scaled = product(&inverse, &residual);
            let next = dot(&residual, &scaled);
            turn(&mut search, next / energy, &scaled);
            energy = next;
        }
        let slope = dot(gradient, &step);
        Ok(Direction { step, slope, products: products as usize })
    }

    /// Looks along a direction for where the objective stops falling, by Newton's method in one dimension between the
    /// ends known so far. No product with the features is needed: scores are linear in the length. Nothing when no
    /// length is lower than none.
    fn search(&self, from: &Iterate, direction: &Direction) -> Result<Option<Iterate>> {
        let change = self.design.scores(&direction.step, self.loss.outputs())?;
        let (mut low, mut high, mut length) = (0f64, f64::INFINITY, 1f64);
        for _ in 0..MOST_LENGTHS {
            let mut parameters = from.parameters.clone();
            add_scaled(&mut parameters, length, &direction.step);
            let scores = from.scores.iter().zip(&change).map(|(z, d)| z + length as f32 * d).collect();
            let next = self.evaluate(parameters, scores);
            let slope = self.slope(&next, direction, &change);
            if slope.abs() <= FLAT * direction.slope.abs() && next.value <= from.value * (1.0 + NOISE) {
                return Ok(Some(next));
            }
            // Not a number counts as too far.
            if slope < 0.0 {
                low = length;
            } else {
                high = length;
            }
            let newton = length - slope / self.bend(&next, direction, &change);
            length = match newton {
                _ if low < newton && newton < high => newton,
                _ if high.is_finite() => 0.5 * (low + high),
                _ => 2.0 * length,
            };
        }
        Ok(None)
    }

    /// The derivative of the objective along a direction whose scores are `change`.
    fn slope(&self, at: &Iterate, direction: &Direction, change: &[f32]) -> f64 {
        let penalties = self.penalties(&at.parameters).into_iter().zip(self.penalties(&direction.step));
        let of_penalty: f64 = penalties.map(|((penalty, x), (_, p))| penalty * dot(x, p)).sum();
        of_penalty + dot_scores(&at.derivatives, change)
    }

    /// The second derivative along it.
    fn bend(&self, at: &Iterate, direction: &Direction, change: &[f32]) -> f64 {
        let outputs = self.loss.outputs();
        let mut curved = change.to_vec();
        for rows in self.design.ranges() {
            let span = rows.start * outputs..rows.end * outputs;
            self.loss.curve(rows, &at.curvature[span.clone()], &mut curved[span]);
        }
        2.0 * self.half_penalty(&direction.step) + dot_scores(&curved, change)
    }
}

/// Sum of products of scores, in f64.
fn dot_scores(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 16;
    simd(|| {
        let mut lanes = [0f64; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (&a, &b))| *lane += f64::from(a) * f64::from(b));
        }
        lanes.iter().sum()
    })
}

/// Sum of products in a fixed order that vectorises.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 16;
    simd(|| {
        let mut lanes = [0f64; LANES];
        let (a_groups, b_groups) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let tail: f64 = a_groups.remainder().iter().zip(b_groups.remainder()).map(|(x, y)| x * y).sum();
        for (a, b) in a_groups.zip(b_groups) {
            for lane in 0..LANES {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        lanes.iter().sum::<f64>() + tail
    })
}

fn add_scaled(to: &mut [f64], factor: f64, values: &[f64]) {
    simd(|| to.iter_mut().zip(values).for_each(|(to, value)| *to += factor * value));
}

/// `search = scaled + factor * search`
fn turn(search: &mut [f64], factor: f64, scaled: &[f64]) {
    simd(|| search.iter_mut().zip(scaled).for_each(|(search, value)| *search = value + factor * *search));
}

fn product(a: &[f64], b: &[f64]) -> Vec<f64> {
    simd(|| a.iter().zip(b).map(|(a, b)| a * b).collect())
}
