//! Choosing the one free number of a probe: C, or the k of kNN.
//!
//! Each setting is scored on a validation set or on the folds of a cross-validation (the mean over the folds). The highest
//! score wins, among equals the lowest cross-entropy, and then the smallest setting. (scikit-learn's `LogisticRegressionCV`
//! takes the smallest C among equals, whose logits may be as good as nothing.) The test set has no part in it.

use super::head::{accuracy, argmax_rows};
use super::knn::{Knn, TEMPERATURE, knn_path, vote_logits};
use super::path::{Selection, SettingScore, ValidationSamples};
use super::{LinearFit, Samples, Standardizer, Stopping, Tip, logistic_path, svm_path};
use crate::error::{Error, Result};
use crate::linalg::Matrix;
use crate::metrics::{Scores, SelectionMetric, nll};

/// A family of probes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ProbeKind {
    /// Multinomial logistic regression.
    Logistic,
    /// Linear support vector machines, one against the rest.
    Svm {
        /// The constant feature whose weight is the intercept; LIBLINEAR's usual 1.
        intercept_scaling: f64,
    },
    /// Nearest neighbours by cosine.
    Knn {
        /// The temperature of the vote.
        temperature: f64,
    },
}

impl ProbeKind {
    /// kNN with DINOv2's temperature.
    pub fn knn() -> Self {
        Self::Knn { temperature: TEMPERATURE }
    }
}

/// A probe without its free number.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSpec {
    /// Which probe.
    pub kind: ProbeKind,
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

impl ProbeSpec {
    /// A recipe with the usual stopping rule and raw features, whose settings are compared by accuracy.
    pub fn new(kind: ProbeKind) -> Self {
        Self { kind, standardize: false, stopping: Stopping::default(), metric: SelectionMetric::Accuracy }
    }

    /// Scores each setting of an ascending grid and chooses one. `progress` receives the number of solves done
    /// and their total.
    ///
    /// # Errors
    /// A data error for samples no probe can be fitted on; a usage error for settings out of range, or when folds or
    /// widths do not fit.
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
        let mut sums: Vec<Sums> = grid.iter().map(|_| Sums::default()).collect();
        let folds = validation.count(train)?;
        let mut done = 0;
        for fold in 0..folds {
            let mut storage = (Vec::new(), Vec::new());
            let (fitted, held_out) = validation.split(train, fold, &mut storage);
            self.score(&fitted, &held_out, grid, &mut |index, score| {
                sums[index].add(&score);
                done += 1;
                progress(done, grid.len() * folds);
                Ok(())
            })?;
        }
        Ok(Selection::best(grid.iter().zip(sums).map(|(&setting, sums)| sums.point(setting)).collect()))
    }

    /// The probe at one setting.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn fit(&self, samples: &Samples<'_>, setting: f64) -> Result<FittedProbe> {
        if let ProbeKind::Knn { temperature } = self.kind {
            let knn = Knn { k: neighbours(setting)?, temperature };
            knn.check()?;
            return Ok(FittedProbe::Knn(Knn { k: knn.k.min(samples.len()), ..knn }));
        }
        let mut fitted = None;
        self.fits(samples, &[setting], &mut |fit| {
            fitted = Some(fit);
            Ok(())
        })?;
        fitted.map(FittedProbe::Linear).ok_or_else(|| Error::usage("there is no setting to fit"))
    }

    /// Scores the grid on one division into training and held-out samples.
    fn score(
        &self,
        train: &Samples<'_>,
        held_out: &Samples<'_>,
        grid: &[f64],
        each: &mut dyn FnMut(usize, Score) -> Result<()>,
    ) -> Result<()> {
        let mut index = 0;
        let mut next = |score| {
            index += 1;
            each(index - 1, score)
        };
        if let ProbeKind::Knn { temperature } = self.kind {
            let grid: Vec<usize> = grid.iter().map(|&setting| neighbours(setting)).collect::<Result<_>>()?;
            return knn_path(train, held_out, &grid, temperature, &mut |_, score| {
                next(Score {
                    train: score.train,
                    held_out: score.held_out,
                    ranked: self.ranked(&vote_logits(&score.shares), held_out)?,
                    objective: None,
                    iterations: 0,
                    converged: true,
                })
            });
        }
        self.fits(train, grid, &mut |fit| {
            let logits = fit.head.logits(held_out.features())?;
            next(Score {
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
    fn fits(&self, samples: &Samples<'_>, grid: &[f64], each: &mut dyn FnMut(LinearFit) -> Result<()>) -> Result<()> {
        if !self.standardize {
            return self.raw_fits(samples, grid, each);
        }
        let standardizer = Standardizer::fit(samples.features());
        let standard = standardizer.apply(samples.features());
        let standard = samples.with_features(Matrix::new(&standard, samples.features().cols()));
        self.raw_fits(&standard, grid, &mut |fit| {
            let head = standardizer.fold_into(&fit.head);
            each(LinearFit { head, ..fit })
        })
    }

    fn raw_fits(
        &self,
        samples: &Samples<'_>,
        grid: &[f64],
        each: &mut dyn FnMut(LinearFit) -> Result<()>,
    ) -> Result<()> {
        match self.kind {
            ProbeKind::Logistic => logistic_path(samples, grid, self.stopping, each),
            ProbeKind::Svm { intercept_scaling } => svm_path(samples, grid, intercept_scaling, self.stopping, each),
            ProbeKind::Knn { .. } => Err(Error::usage("nearest neighbours have no linear head")),
        }
    }
}

/// A setting as a number of neighbours.
fn neighbours(setting: f64) -> Result<usize> {
    if setting >= 1.0 && setting.fract() == 0.0 && setting < 1e9 {
        return Ok(setting as usize);
    }
    Err(Error::usage_hint(format!("{setting} is not a number of neighbours"), "a whole number from 1"))
}

impl ValidationSamples<'_> {
    /// The number of divisions.
    pub(super) fn count(&self, train: &Samples<'_>) -> Result<usize> {
        let fold_of = match self {
            Self::HeldOut(samples) if samples.features().cols() == train.features().cols() => return Ok(1),
            Self::HeldOut(samples) => {
                let (ours, theirs) = (train.features().cols(), samples.features().cols());
                return Err(Error::usage(format!("validation features of {theirs} values do not fit {ours}")));
            }
            Self::Folds(fold_of) => fold_of,
        };
        let folds = fold_of.iter().max().map_or(0, |&last| last + 1);
        let empty = (0..folds).any(|fold| !fold_of.contains(&fold));
        if fold_of.len() != train.len() || folds < 2 || empty {
            return Err(Error::usage(format!(
                "{} folds of {} samples do not fit {}",
                folds,
                fold_of.len(),
                train.len()
            )));
        }
        Ok(folds)
    }

    /// The samples to fit on and those held out.
    pub(super) fn split<'s>(
        &'s self,
        train: &'s Samples<'s>,
        fold: usize,
        storage: &'s mut (Vec<f32>, Vec<f32>),
    ) -> (Samples<'s>, Samples<'s>) {
        match self {
            Self::HeldOut(samples) => (train.clone(), (*samples).clone()),
            Self::Folds(fold_of) => {
                let (inside, outside): (Vec<usize>, Vec<usize>) = (0..train.len()).partition(|&i| fold_of[i] == fold);
                (train.subset(&outside, &mut storage.0), train.subset(&inside, &mut storage.1))
            }
        }
    }
}

/// One setting on one division.
struct Score {
    train: f64,
    held_out: f64,
    /// The metric and the cross-entropy of the held-out samples.
    ranked: (f64, f64),
    objective: Option<f64>,
    iterations: usize,
    converged: bool,
}

/// One setting over the divisions so far.
#[derive(Default)]
struct Sums {
    train: Vec<f64>,
    held_out: Vec<f64>,
    ranked: Vec<(f64, f64)>,
    objectives: Vec<f64>,
    iterations: usize,
    all_converged: Option<bool>,
}

impl Sums {
    fn add(&mut self, score: &Score) {
        self.train.push(score.train);
        self.held_out.push(score.held_out);
        self.ranked.push(score.ranked);
        self.objectives.extend(score.objective);
        self.iterations += score.iterations;
        self.all_converged = Some(self.all_converged.unwrap_or(true) && score.converged);
    }

    fn point(self, setting: f64) -> SettingScore {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        SettingScore {
            setting,
            train_accuracy: mean(&self.train),
            validation_accuracy: mean(&self.held_out),
            validation_score: mean(&self.ranked.iter().map(|ranked| ranked.0).collect::<Vec<f64>>()),
            validation_loss: mean(&self.ranked.iter().map(|ranked| ranked.1).collect::<Vec<f64>>()),
            objective: (!self.objectives.is_empty()).then(|| mean(&self.objectives)),
            fold_accuracies: self.held_out,
            iterations: self.iterations,
            converged: self.all_converged.unwrap_or(false),
        }
    }
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

    fn kinds() -> [(ProbeKind, Vec<f64>); 3] {
        let svm = ProbeKind::Svm { intercept_scaling: 1.0 };
        [ProbeKind::Logistic, svm, ProbeKind::knn()].map(|kind| match kind {
            ProbeKind::Knn { .. } => (kind, vec![1.0, 3.0, 500.0]),
            _ => (kind, log_grid(1e-3, 1e3, 4)),
        })
    }

    #[test]
    fn every_family_is_chosen_and_fitted() {
        let names = ["a".to_owned(), "b".to_owned()];
        let ((train, labels), (held, held_labels)) = (values(60, 0), values(30, 1));
        let train = Samples::new(Matrix::new(&train, 2), &labels, &names).unwrap();
        let held = Samples::new(Matrix::new(&held, 2), &held_labels, &names).unwrap();
        let folds = assign_folds(&labels, &names, None, 3, Stream::new(0, Purpose::Folds, &[])).unwrap();
        for (kind, grid) in kinds() {
            for validation in [ValidationSamples::HeldOut(&held), ValidationSamples::Folds(&folds)] {
                let spec = ProbeSpec { standardize: true, ..ProbeSpec::new(kind) };
                let selection = spec.select(&train, &validation, &grid, &mut |_, _| ()).unwrap();
                let best = selection.path.iter().map(|point| point.validation_score).fold(0.0, f64::max);
                let tied = || selection.path.iter().filter(|point| point.validation_score == best);
                let least = tied().map(|point| point.validation_loss).fold(f64::INFINITY, f64::min);
                let chosen = &selection.path[selection.chosen];
                assert_eq!((chosen.validation_score, chosen.validation_loss), (best, least), "{kind:?}");
                for point in &selection.path {
                    let folds = if matches!(validation, ValidationSamples::Folds(_)) { 3 } else { 1 };
                    assert_eq!(point.fold_accuracies.len(), folds);
                    assert_eq!(point.objective.is_none(), matches!(kind, ProbeKind::Knn { .. }));
                }
                match spec.fit(&train, selection.setting()).unwrap() {
                    FittedProbe::Linear(fit) => {
                        let predicted = fit.head.predict(held.features()).unwrap();
                        assert!(accuracy(&predicted, held.labels()) > 0.85, "{kind:?} {fit:?}");
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
            let spec = ProbeSpec::new(ProbeKind::Logistic);
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
        let (good, defect) = ([1f32, 0.0], [0f32, 1.0]);
        let values: Vec<f32> = (0..40).flat_map(|i| if i < 36 { good } else { defect }).collect();
        let labels: Vec<usize> = (0..40).map(|i| usize::from(i >= 36)).collect();
        let samples = Samples::new(Matrix::new(&values, 2), &labels, &names).unwrap();
        let knn = ProbeKind::Knn { temperature: 1e3 };
        let spec = ProbeSpec { metric: SelectionMetric::BalancedAccuracy, ..ProbeSpec::new(knn) };
        let found = spec.select(&samples, &ValidationSamples::HeldOut(&samples), &[3.0, 40.0], &mut |_, _| ()).unwrap();
        // All forty vote: the rare ones are outvoted.
        let scores: Vec<(f64, f64)> =
            found.path.iter().map(|point| (point.validation_accuracy, point.validation_score)).collect();
        assert_eq!((found.setting(), scores), (3.0, vec![(1.0, 1.0), (0.9, 0.5)]));
    }

    #[test]
    fn validation_must_fit() {
        let names = ["a".to_owned(), "b".to_owned()];
        let (train, labels) = values(8, 0);
        let wide = Samples::new(Matrix::new(&train, 4), &labels[..4], &names).unwrap();
        let train = Samples::new(Matrix::new(&train, 2), &labels, &names).unwrap();
        let refused = |validation: ValidationSamples<'_>, kind, grid: &[f64]| {
            ProbeSpec::new(kind).select(&train, &validation, grid, &mut |_, _| ()).unwrap_err().to_string()
        };
        assert!(refused(ValidationSamples::HeldOut(&wide), ProbeKind::Logistic, &[1.0]).contains("4 values"));
        assert!(refused(ValidationSamples::Folds(&[0, 1]), ProbeKind::Logistic, &[1.0]).contains("2 samples"));
        assert!(refused(ValidationSamples::Folds(&[0; 8]), ProbeKind::Logistic, &[1.0]).contains("1 folds"));
        let halves = [0, 0, 1, 1, 0, 0, 1, 1];
        assert!(refused(ValidationSamples::Folds(&halves), ProbeKind::knn(), &[1.5]).contains("1.5"));
        assert!(refused(ValidationSamples::Folds(&halves), ProbeKind::knn(), &[]).contains("no value to try"));
    }
}
