//! What the linear probes share: preparation of the features, and the path along C.

use super::design::Design;
use super::newton::{Iterate, PenalizedLoss, ScoreLoss, Solution, Stopping};
use super::rotation::Rotation;
use super::{LinearHead, Samples};
use crate::error::{Error, Result};
use crate::linalg::Matrix;
use rayon::prelude::*;

/// The values of C that f32 features can tell apart from none and from infinite regularisation.
const C_RANGE: std::ops::RangeInclusive<f64> = 1e-10..=1e10;

/// A linear classifier at one C.
#[derive(Debug, Clone)]
pub struct LinearFit {
    /// The inverse strength of the regularisation.
    pub c: f64,
    /// Weights and biases on raw features.
    pub head: LinearHead,
    /// The objective, per unit of sample weight: (1/S) Σ s l + ‖W‖² / (2 C S).
    pub objective: f64,
    /// Newton steps from the solution at the next smaller C, over all machines of an SVM.
    pub iterations: usize,
    /// Products with the Hessian in these steps: where the time goes.
    pub products: usize,
    /// Whether the stopping rule was met, see [`Stopping`]; false when `max_iterations` ran out first.
    pub converged: bool,
}

/// Receives the fits of a path, one after another.
pub type FitSink<'a> = &'a mut dyn FnMut(LinearFit) -> Result<()>;

/// Fits the `losses`, each with outputs of its own, for each C of an ascending grid, from one solution to the next, and
/// hands each fit to `each`.
///
/// A free intercept allows features to be centred: the optimum is the same and the Hessian better conditioned. One that is
/// not is penalised like the weights. Features are rotated to their rank when there are fewer samples than features, and
/// cut into blocks once for the whole path.
pub(super) fn path<L: ScoreLoss>(
    samples: &Samples<'_>,
    losses: &[L],
    free_intercept: bool,
    grid: &[f64],
    stopping: Stopping,
    each: FitSink<'_>,
) -> Result<()> {
    let ascending = grid.windows(2).all(|pair| pair[0] < pair[1]);
    if grid.is_empty() || !ascending || !grid.iter().all(|c| C_RANGE.contains(c)) {
        let hint = format!("give ascending numbers between {:e} and {:e}", C_RANGE.start(), C_RANGE.end());
        return Err(Error::usage_hint(format!("{grid:?} are no values of C to try"), hint));
    }
    let outputs = losses.iter().map(ScoreLoss::outputs).max().unwrap_or(0);
    let features = SolverFeatures::new(samples.features(), free_intercept, outputs)?;
    let weights = total_weights(samples);
    let total: f64 = weights.iter().sum();
    let squares = features.design.weighted_squares(|i| weights[i] / total);
    let mut solved: Vec<Trail> = losses.iter().map(|_| Trail::default()).collect();
    for &c in grid {
        let penalty = 1.0 / (c * total);
        let bias_penalty = if free_intercept { 0.0 } else { penalty };
        let solve = |(loss, trail): (&L, &mut Trail)| -> Result<Solution> {
            let objective = PenalizedLoss { design: &features.design, loss, penalty, bias_penalty, squares: &squares };
            let solution = objective.minimize(trail.start(&objective, c)?, stopping)?;
            trail.push(c, &solution.parameters);
            Ok(solution)
        };
        let solutions = losses.par_iter().zip(&mut solved).map(solve).collect::<Result<Vec<Solution>>>()?;
        each(features.fit(c, &solutions)?)?;
    }
    Ok(())
}

/// The weight of each sample: that of its class.
pub(super) fn total_weights(samples: &Samples<'_>) -> Vec<f64> {
    samples.labels().iter().map(|&label| samples.class_weights()[label]).collect()
}

/// The last two solutions of a path.
#[derive(Default)]
struct Trail {
    last: Option<(f64, Vec<f64>)>,
    before: Option<(f64, Vec<f64>)>,
}

impl Trail {
    fn push(&mut self, c: f64, parameters: &[f64]) {
        self.before = self.last.replace((c, parameters.to_vec()));
    }

    /// Where to start: at the last solution, or on the line through the last two in ln C when that is lower. Along ln C
    /// solutions move almost straight, most of all where classes are separable and weights grow without end.
    fn start<L: ScoreLoss>(&self, objective: &PenalizedLoss<'_, L>, c: f64) -> Result<Iterate> {
        let Some((last_c, last)) = &self.last else {
            return objective.at(vec![0.0; objective.loss.outputs() * (objective.design.cols() + 1)]);
        };
        let here = objective.at(last.clone())?;
        let Some((before_c, before)) = &self.before else { return Ok(here) };
        let ratio = (c / last_c).ln() / (last_c / before_c).ln();
        let ahead = objective.at(last.iter().zip(before).map(|(a, b)| a + ratio * (a - b)).collect())?;
        // Not a number compares as false: an overflowing guess is never taken.
        Ok(if ahead.value < here.value { ahead } else { here })
    }
}

/// The features in the coordinates of the solver, and how to map its solutions back.
struct SolverFeatures {
    design: Design,
    /// What was subtracted from each raw feature; none when not centred.
    centre: Option<Vec<f64>>,
    rotation: Option<Rotation>,
}

impl SolverFeatures {
    fn new(raw: Matrix<'_>, centred: bool, outputs: usize) -> Result<Self> {
        let centre = centred.then(|| raw.means());
        let moved: Option<Vec<f32>> = centre.as_ref().map(|centre| {
            let rows = raw.values().chunks_exact(raw.cols());
            rows.flat_map(|row| row.iter().zip(centre).map(|(&x, m)| (f64::from(x) - m) as f32)).collect()
        });
        let features = moved.as_ref().map_or(raw, |moved| Matrix::new(moved, raw.cols()));
        let rotation = Rotation::pays(features).then(|| Rotation::new(features)).transpose()?;
        let design = Design::new(rotation.as_ref().map_or(features, Rotation::features), outputs);
        Ok(Self { design, centre, rotation })
    }

    /// The head of the solutions' outputs, one after the other.
    fn fit(&self, c: f64, solutions: &[Solution]) -> Result<LinearFit> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for Solution { parameters, .. } in solutions {
            let outputs = parameters.len() / (self.design.cols() + 1);
            let (weights, biases) = parameters.split_at(outputs * self.design.cols());
            weight.extend_from_slice(weights);
            bias.extend_from_slice(biases);
        }
        if let Some(rotation) = &self.rotation {
            weight = rotation.back(&weight)?;
        }
        if let Some(centre) = &self.centre {
            for (bias, row) in bias.iter_mut().zip(weight.chunks_exact(centre.len())) {
                *bias -= row.iter().zip(centre).map(|(w, m)| w * m).sum::<f64>();
            }
        }
        Ok(LinearFit {
            c,
            head: LinearHead::from_vectors(&weight, &bias),
            objective: solutions.iter().map(|solution| solution.value).sum(),
            iterations: solutions.iter().map(|solution| solution.iterations).sum(),
            products: solutions.iter().map(|solution| solution.products).sum(),
            converged: solutions.iter().all(|solution| solution.converged),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{logistic_path, svm_path};
    use crate::rng::{Purpose, Stream};

    const TIGHT: Stopping = Stopping { tolerance: 1e-9, max_iterations: 1000 };

    fn random(n: usize) -> Vec<f32> {
        let mut stream = Stream::new(2, Purpose::Init, &[]);
        (0..n).map(|_| stream.normal() as f32).collect()
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|c| format!("c{c}")).collect()
    }

    fn fits(samples: &Samples<'_>, grid: &[f64], svm: bool) -> Vec<LinearFit> {
        let mut fits = Vec::new();
        let each = &mut |fit| {
            fits.push(fit);
            Ok(())
        };
        let path = if svm { svm_path } else { logistic_path };
        path(samples, grid, TIGHT, each).unwrap();
        fits
    }

    #[test]
    fn a_duplicate_is_a_weight_of_two() {
        for (classes, svm) in [(4, false), (2, true)] {
            let (values, names, each) = (random(40 * 5), names(classes), 40 / classes);
            let labels: Vec<usize> = (0..40).map(|i| i / each).collect();
            let mut weights = vec![1.0; classes];
            weights[0] = 2.0;
            let weighted = Samples::new(Matrix::new(&values, 5), &labels, &names).unwrap().weighted(weights).unwrap();
            let twice: Vec<f32> = values.iter().chain(&values[..each * 5]).copied().collect();
            let labels: Vec<usize> = labels.iter().chain(&labels[..each]).copied().collect();
            let repeated = Samples::new(Matrix::new(&twice, 5), &labels, &names).unwrap();
            let [a, b] = [&weighted, &repeated].map(|samples| fits(samples, &[0.1, 1.0], svm).remove(1));
            assert!((a.objective / b.objective - 1.0).abs() < 1e-6);
            assert!(a.head.weight.iter().zip(&b.head.weight).all(|(a, b)| (a - b).abs() < 1e-3), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_warm_start_ends_where_a_cold_one_does() {
        let (values, names) = (random(60 * 20), names(3));
        let labels: Vec<usize> = (0..60).map(|i| i % 3).collect();
        let samples = Samples::new(Matrix::new(&values, 20), &labels, &names).unwrap();
        for svm in [false, true] {
            let warm = fits(&samples, &[1e-3, 1e-2, 0.1, 1.0, 10.0], svm).remove(4);
            let cold = fits(&samples, &[10.0], svm).remove(0);
            assert!(warm.converged && cold.converged);
            assert!((warm.objective / cold.objective - 1.0).abs() < 1e-5, "{} {}", warm.objective, cold.objective);
        }
    }

    #[test]
    fn degenerate_features_have_a_fit() {
        // Three samples; a constant feature, a huge one, one of zeros; twice the same row.
        let values = [7f32, 1e30, 0.0, 1.0, 7.0, -1e30, 0.0, 2.0, 7.0, -1e30, 0.0, 2.0];
        let (names, labels) = (names(2), [0, 1, 0]);
        let samples = Samples::new(Matrix::new(&values, 4), &labels, &names).unwrap();
        let columns = Samples::new(Matrix::new(&values, 1), &[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], &names).unwrap();
        for svm in [false, true] {
            for fit in fits(&samples, &[1e-10, 1.0, 1e10], svm) {
                assert!(fit.objective.is_finite(), "{fit:?}");
                assert!(fit.head.weight.iter().chain(&fit.head.bias).all(|w| w.is_finite()), "{fit:?}");
            }
            assert!(fits(&columns, &[1.0], svm)[0].objective.is_finite());
        }
        let constant = fits(&samples, &[1.0], false).remove(0);
        assert_eq!((constant.head.weight[0], constant.head.weight[2]), (0.0, 0.0));
    }

    #[test]
    fn a_fit_that_is_cut_short_says_so() {
        let (values, names) = (random(4), names(2));
        let samples = Samples::new(Matrix::new(&values, 1), &[0, 1, 0, 1], &names).unwrap();
        let mut converged = true;
        logistic_path(&samples, &[1e5], Stopping { tolerance: 1e-9, max_iterations: 1 }, &mut |fit| {
            converged = fit.converged;
            Ok(())
        })
        .unwrap();
        assert!(!converged);
    }
}
