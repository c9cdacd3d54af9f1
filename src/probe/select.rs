//! Choosing the one free number of a probe: C, or the k of kNN.
//!
//! Each setting is scored on a validation set or on the folds of a cross-validation (the mean over the folds). The highest
//! score wins, among equals the lowest cross-entropy, and then the smallest setting. (scikit-learn's `LogisticRegressionCV`
//! takes the smallest C among equals, whose logits may be as good as nothing.) The test set has no part in it.

use super::head::{accuracy, argmax_rows};
use super::knn::{Knn, knn_path, vote_logits};
use super::path::{Score, Scored, Selection, ValidationSamples};
use super::{FitSink, LinearFit, Samples, Standardizer, Stopping, Tip, logistic_path, svm_path};
use crate::config::ProbeMethod;
use crate::error::{Error, Result};
use crate::linalg::Matrix;
use crate::metrics::{Scores, SelectionMetric, nll};

/// A probe without its free number.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSpec {
    /// Which probe: logistic, SVM or kNN.
    pub method: ProbeMethod,
    /// Standardise each feature by the training samples; the head that comes out still takes raw features. Without
    /// effect on kNN.
    pub standardize: bool,
    /// When a solve ends.
    pub stopping: Stopping,
    /// What settings are compared by.
    pub metric: SelectionMetric,
}

/// A probe at one setting.
#[derive(Debug, Clone)]
pub enum FittedProbe {
    /// A linear head.
    Linear(LinearFit),
    /// A vote of the samples it was fitted on.
    Knn(Knn),
    /// Texts and such a vote.
    Tip(Tip),
}

impl FittedProbe {
    /// Logits (n, K) of queries (n, d). `fitted_on` are the samples of the fit, which vote in kNN and Tip-Adapter.
    ///
    /// # Errors
    /// A usage error when the widths differ.
    pub fn logits(&self, fitted_on: &Samples<'_>, queries: Matrix<'_>) -> Result<Vec<f32>> {
        match self {
            Self::Linear(fit) => fit.head.logits(queries),
            Self::Knn(knn) => Ok(vote_logits(&knn.vote(fitted_on, queries)?.shares)),
            Self::Tip(tip) => tip.logits(fitted_on, queries),
        }
    }
}

impl ProbeSpec {
    /// A recipe with the usual stopping rule and raw features, whose settings are compared by accuracy.
    pub fn new(method: ProbeMethod) -> Self {
        Self { method, standardize: false, stopping: Stopping::default(), metric: SelectionMetric::Accuracy }
    }

    /// Scores each setting of an ascending grid and chooses one. `progress` receives the number of solves done
    /// and their total.
    ///
    /// # Errors
    /// A data error for samples no probe can be fitted on; a usage error for settings out of range, or when folds or widths do
    /// not fit.
    pub fn select(
        &self,
        train: &Samples<'_>,
        validation: &ValidationSamples<'_>,
        grid: &[f64],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Selection> {
        if grid.is_empty() {
            return Err(Error::usage_hint("there is no value to try", "give at least one"));
        }
        let mut scored = vec![Scored::default(); grid.len()];
        let folds = validation.count(train)?;
        let mut done = 0;
        for fold in 0..folds {
            let mut storage = (Vec::new(), Vec::new());
            let (fitted, held_out) = validation.split(train, fold, &mut storage);
            self.score(&fitted, &held_out, grid, &mut |score| {
                scored[done % grid.len()].add(&score);
                done += 1;
                progress(done, grid.len() * folds);
                Ok(())
            })?;
        }
        Ok(Selection::best(grid.iter().zip(scored).map(|(&setting, scored)| scored.point(setting)).collect()))
    }

    /// The probe at one setting.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn fit(&self, samples: &Samples<'_>, setting: f64) -> Result<FittedProbe> {
        if self.method == ProbeMethod::Knn {
            return Ok(FittedProbe::Knn(Knn { k: neighbors(setting)?.min(samples.len()) }));
        }
        let mut fitted = None;
        self.fits(samples, &[setting], &mut |fit| {
            fitted = Some(fit);
            Ok(())
        })?;
        fitted.map(FittedProbe::Linear).ok_or_else(|| Error::usage("there is no setting to fit"))
    }

    /// Scores each setting of the grid on one division into training and held-out samples.
    fn score(
        &self,
        train: &Samples<'_>,
        held_out: &Samples<'_>,
        grid: &[f64],
        each: &mut dyn FnMut(Score) -> Result<()>,
    ) -> Result<()> {
        if self.method == ProbeMethod::Knn {
            let grid = grid.iter().map(|&setting| neighbors(setting)).collect::<Result<Vec<usize>>>()?;
            return knn_path(train, held_out, &grid, &mut |score| {
                let ranked = self.ranked(&vote_logits(&score.shares), held_out)?;
                each(Score::of_votes(score.train, score.held_out, ranked))
            });
        }
        self.fits(train, grid, &mut |fit| {
            let logits = fit.head.logits(held_out.features())?;
            each(Score {
                train: accuracy(&fit.head.predict(train.features())?, train.labels()),
                held_out: accuracy(&argmax_rows(&logits, fit.head.classes()), held_out.labels()),
                ranked: self.ranked(&logits, held_out)?,
                objective: Some(fit.objective),
                iterations: fit.iterations,
                converged: fit.converged,
            })
        })
    }

    /// The metric on held-out samples, and their mean cross-entropy.
    fn ranked(&self, logits: &[f32], held_out: &Samples<'_>) -> Result<(f64, f64)> {
        let scores = Scores::new(logits, held_out.labels(), held_out.classes())?;
        let metric = self.metric.score(&scores).unwrap_or(f64::NEG_INFINITY);
        Ok((metric, nll(&scores, 1.0).unwrap_or(f64::INFINITY)))
    }

    /// The fits of a linear family along C, on raw features.
    fn fits(&self, samples: &Samples<'_>, grid: &[f64], each: FitSink<'_>) -> Result<()> {
        let path = match self.method {
            ProbeMethod::Logistic => logistic_path,
            ProbeMethod::Svm => svm_path,
            ProbeMethod::Knn | ProbeMethod::Tip | ProbeMethod::Patchcore => {
                return Err(Error::usage("this probe has no linear head"));
            }
        };
        if !self.standardize {
            return path(samples, grid, self.stopping, each);
        }
        let standardizer = Standardizer::fit(samples.features());
        let standard = standardizer.apply(samples.features());
        let standard = samples.with_features(Matrix::new(&standard, samples.features().cols()));
        path(&standard, grid, self.stopping, &mut |fit| {
            let head = standardizer.fold_into(&fit.head);
            each(LinearFit { head, ..fit })
        })
    }
}

fn neighbors(setting: f64) -> Result<usize> {
    if setting >= 1.0 && setting.fract() == 0.0 && setting < 1e9 {
        return Ok(setting as usize);
    }
    Err(Error::usage_hint(format!("{setting} is not a number of neighbours"), "a whole number from 1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::log_grid;
    use crate::data::folds::assign_folds;
    use crate::rng::{Purpose, Stream};

    /// Two classes apart on the first feature, which is small beside the second, pure noise.
    fn values(rows: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
        let mut stream = Stream::new(seed, Purpose::Init, &[]);
        let labels: Vec<usize> = (0..rows).map(|i| i % 2).collect();
        let row =
            |&label: &usize| [(label as f64 + 0.3 * stream.normal()) as f32 + 5.0, 100.0 * stream.normal() as f32];
        (labels.iter().flat_map(row).collect(), labels)
    }

    #[test]
    fn grids_and_folds_must_fit() {
        let names = ["a".to_owned(), "b".to_owned()];
        let (train, labels) = values(8, 0);
        let train = Samples::new(Matrix::new(&train, 2), &labels, &names).unwrap();
        let refused = |folds: &[usize], method, grid: &[f64]| {
            let validation = ValidationSamples::Folds(folds);
            ProbeSpec::new(method).select(&train, &validation, grid, &mut |_, _| ()).unwrap_err().to_string()
        };
        let halves = [0, 0, 1, 1, 0, 0, 1, 1];
        for (folds, said) in [(&[0, 1][..], "2 samples"), (&[0; 8], "1 folds"), (&[0, 0, 2, 2, 0, 0, 2, 2], "3 folds")]
        {
            assert!(refused(folds, ProbeMethod::Logistic, &[1.0]).contains(said), "{said}");
        }
        for method in [ProbeMethod::Logistic, ProbeMethod::Svm] {
            for grid in [&[0.0][..], &[f64::NAN], &[1.0, 1.0], &[1e11]] {
                assert!(refused(&halves, method, grid).contains("no values of C"), "{method} {grid:?}");
            }
        }
        for k in [0.0, 1.5, f64::NAN] {
            assert!(refused(&halves, ProbeMethod::Knn, &[k]).contains("not a number of neighbours"), "{k}");
            assert!(ProbeSpec::new(ProbeMethod::Knn).fit(&train, k).is_err(), "{k}");
        }
        assert!(refused(&halves, ProbeMethod::Knn, &[]).contains("no value to try"));
    }

    #[test]
    fn every_family_is_chosen_and_fitted() {
        let names = ["a".to_owned(), "b".to_owned()];
        let ((train, labels), (held, held_labels)) = (values(60, 0), values(30, 1));
        let train = Samples::new(Matrix::new(&train, 2), &labels, &names).unwrap();
        let held = Samples::new(Matrix::new(&held, 2), &held_labels, &names).unwrap();
        let folds = assign_folds(&labels, &names, None, 3, Stream::new(0, Purpose::Folds, &[])).unwrap();
        let grids = [log_grid(1e-3, 1e3, 4), log_grid(1e-3, 1e3, 4), vec![1.0, 3.0, 500.0]];
        for (method, grid) in [ProbeMethod::Logistic, ProbeMethod::Svm, ProbeMethod::Knn].into_iter().zip(grids) {
            for validation in [ValidationSamples::HeldOut(&held), ValidationSamples::Folds(&folds)] {
                let spec = ProbeSpec { standardize: true, ..ProbeSpec::new(method) };
                let selection = spec.select(&train, &validation, &grid, &mut |_, _| ()).unwrap();
                let best = selection.path.iter().map(|point| point.validation_score).fold(0.0, f64::max);
                let tied = || selection.path.iter().filter(|point| point.validation_score == best);
                let least = tied().map(|point| point.validation_loss).fold(f64::INFINITY, f64::min);
                let chosen = &selection.path[selection.chosen];
                assert_eq!((chosen.validation_score, chosen.validation_loss), (best, least), "{method:?}");
                for point in &selection.path {
                    let folds = if matches!(validation, ValidationSamples::Folds(_)) { 3 } else { 1 };
                    assert_eq!(point.fold_accuracies.len(), folds);
                    assert_eq!(point.objective.is_none(), method == ProbeMethod::Knn);
                }
                match spec.fit(&train, selection.setting()).unwrap() {
                    FittedProbe::Linear(fit) => {
                        let predicted = fit.head.predict(held.features()).unwrap();
                        assert!(accuracy(&predicted, held.labels()) > 0.85, "{method:?} {fit:?}");
                    }
                    FittedProbe::Knn(knn) => assert_eq!(knn.k as f64, selection.setting().min(60.0)),
                    FittedProbe::Tip(tip) => panic!("{tip:?} from a recipe"),
                }
            }
        }
    }

    /// Easy classes: every C is right on all, and the smallest would leave logits of nothing.
    #[test]
    fn ties_go_to_the_lowest_loss_and_edges_are_told() {
        let names = ["a".to_owned(), "b".to_owned()];
        let (values, labels) = ([-1.1f32, -1.0, -0.9, 0.9, 1.0, 1.1], [0, 0, 0, 1, 1, 1]);
        let samples = Samples::new(Matrix::new(&values, 1), &labels, &names).unwrap();
        let select = |grid: &[f64]| {
            let spec = ProbeSpec::new(ProbeMethod::Logistic);
            spec.select(&samples, &ValidationSamples::HeldOut(&samples), grid, &mut |_, _| ()).unwrap()
        };
        let found = select(&log_grid(1e-6, 1e2, 9));
        assert!(found.path.iter().all(|point| point.validation_accuracy == 1.0));
        assert!(found.setting() > 1.0 && found.path[found.chosen].validation_loss < 0.1, "{found:?}");
        assert!(found.at_edge() && !select(&[1.0]).at_edge());
    }

    /// Four rare images in forty: by accuracy missing them costs little.
    #[test]
    fn rare_classes_count_where_balanced_accuracy_decides() {
        let names = ["good".to_owned(), "defect".to_owned()];
        let (good, defect) = ([1f32, 0.0], [1f32, 0.1]);
        let values: Vec<f32> = (0..40).flat_map(|i| if i < 36 { good } else { defect }).collect();
        let labels: Vec<usize> = (0..40).map(|i| usize::from(i >= 36)).collect();
        let samples = Samples::new(Matrix::new(&values, 2), &labels, &names).unwrap();
        let spec = ProbeSpec { metric: SelectionMetric::BalancedAccuracy, ..ProbeSpec::new(ProbeMethod::Knn) };
        let found = spec.select(&samples, &ValidationSamples::HeldOut(&samples), &[3.0, 40.0], &mut |_, _| ()).unwrap();
        // All forty vote: the rare ones are outvoted.
        let scores: Vec<(f64, f64)> =
            found.path.iter().map(|point| (point.validation_accuracy, point.validation_score)).collect();
        assert_eq!((found.setting(), scores), (3.0, vec![(1.0, 1.0), (0.9, 0.5)]));
    }

    #[test]
    fn votes_come_back_from_their_logits() {
        let (values, names) = ([1f32, 0.0, 0.0, 1.0], ["a".to_owned(), "b".to_owned()]);
        let train = Samples::new(Matrix::new(&values, 2), &[0, 1], &names).unwrap();
        let model = FittedProbe::Knn(Knn { k: 2 });
        let logits = model.logits(&train, Matrix::new(&[1.0, 0.9], 2)).unwrap();
        let share = 1.0 / (1.0 + (-0.1 / 1.81f32.sqrt() / 0.07).exp());
        assert!((logits[0].exp() - share).abs() < 1e-6 && (logits[0].exp() + logits[1].exp() - 1.0).abs() < 1e-6);
        assert!(vote_logits(&[0.0]).iter().all(|logit| logit.is_finite()));
    }
}
