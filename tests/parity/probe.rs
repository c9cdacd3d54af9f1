//! Probes against scikit-learn: `tests/fixtures/make_probe_fixtures.py` says how the numbers were made.

use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use vitadapt::config::{ProbeMethod, log_grid};
use vitadapt::linalg::Matrix;
use vitadapt::probe::{
    Knn, LinearFit, LinearHead, ProbeSpec, Samples, Stopping, ValidationSamples, logistic_path, svm_path,
};

const CASES: [&str; 6] = ["textile", "two", "ten", "wide", "weighted", "two_weighted"];
/// Tight enough that probabilities have settled as well.
const TIGHT: Stopping = Stopping { tolerance: 1e-9, max_iterations: 2000 };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/probe").join(name)
}

fn cases() -> Value {
    serde_json::from_slice(&fs::read(fixture("probe.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|number| number as usize).collect()
}

struct Data {
    features: Vec<f32>,
    cols: usize,
    labels: Vec<usize>,
    names: Vec<String>,
    class_weights: Option<Vec<f64>>,
}

impl Data {
    fn of(name: &str, case: &Value) -> Self {
        let mut data = if name == "textile" { Self::textile() } else { Self::drawn(&indices(&case["shape"])) };
        data.class_weights = (!case["class_weights"].is_null()).then(|| numbers(&case["class_weights"]));
        data
    }

    fn textile() -> Self {
        let bytes = fs::read(fixture("textile.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let (features, labels) = (tensors.tensor("features").unwrap(), tensors.tensor("labels").unwrap());
        let features = features.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let labels = labels.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize);
        Self::new(features, 192, labels.collect(), 3)
    }

    /// The script's `draw`.
    fn drawn(shape: &[usize]) -> Self {
        let &[n, d, k, seed] = shape else { unreachable!() };
        let mut state = seed as u64;
        let mut value = |i: usize, j: usize| {
            state = (state * 1_103_515_245 + 12345) % (1 << 31);
            let shift = if j % k == i % k && j < 2 * k { 25 } else { 0 };
            ((state >> 16) % 100 + shift) as f32 / 32.0
        };
        let features = (0..n * d).map(|at| value(at / d, at % d)).collect();
        Self::new(features, d, (0..n).map(|i| i % k).collect(), k)
    }

    fn new(features: Vec<f32>, cols: usize, labels: Vec<usize>, classes: usize) -> Self {
        let names = (0..classes).map(|c| format!("class {c}")).collect();
        Self { features, cols, labels, names, class_weights: None }
    }

    fn rows(&self, range: std::ops::Range<usize>) -> Samples<'_> {
        let values = &self.features[range.start * self.cols..range.end * self.cols];
        let samples = Samples::new(Matrix::new(values, self.cols), &self.labels[range], &self.names).unwrap();
        match &self.class_weights {
            Some(weights) => samples.weighted(weights.clone()).unwrap(),
            None => samples,
        }
    }

    /// The samples that were fitted: for the textile set without its validation rows.
    fn train(&self, case: &Value) -> Samples<'_> {
        self.rows(0..case["selection"]["train"].as_u64().map_or(self.labels.len(), |train| train as usize))
    }
}

/// Logits in f64.
fn logits(head: &LinearHead, samples: &Samples<'_>) -> Vec<Vec<f64>> {
    let features = samples.features();
    let logit = |row: &[f32], class: usize| {
        let weight = &head.weight[class * row.len()..(class + 1) * row.len()];
        row.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>() + f64::from(head.bias[class])
    };
    (0..samples.len()).map(|i| (0..head.classes()).map(|c| logit(features.row(i), c)).collect()).collect()
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = row.iter().map(|z| (z - most).exp()).sum();
    row.iter().map(|z| (z - most).exp() / total).collect()
}

/// ‖W‖², of the one vector where there are two classes.
fn square_norm(values: &[f32], classes: usize) -> f64 {
    values.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() * if classes == 2 { 2.0 } else { 1.0 }
}

fn weights(samples: &Samples<'_>) -> Vec<f64> {
    samples.labels().iter().map(|&label| samples.class_weights()[label]).collect()
}

/// The objective of the head as saved, in f64.
fn logistic_objective(fit: &LinearFit, samples: &Samples<'_>) -> f64 {
    let s = weights(samples);
    let rows = logits(&fit.head, samples);
    let loss: f64 = rows.iter().zip(samples.labels()).zip(&s).map(|((row, &y), s)| -s * softmax(row)[y].ln()).sum();
    (loss + square_norm(&fit.head.weight, samples.classes()) / (2.0 * fit.c)) / s.iter().sum::<f64>()
}

fn svm_objective(fit: &LinearFit, samples: &Samples<'_>) -> f64 {
    let (s, two) = (weights(samples), samples.classes() == 2);
    let mut loss = 0.0;
    for ((row, &label), s) in logits(&fit.head, samples).iter().zip(samples.labels()).zip(&s) {
        let hinge = |positive: bool, z: f64| (1.0 - if positive { z } else { -z }).max(0.0).powi(2);
        loss += if two {
            s * hinge(label == 1, row[1] - row[0])
        } else {
            let hinges = row.iter().enumerate().map(|(c, &z)| hinge(c == label, z) * if c == label { *s } else { 1.0 });
            hinges.sum()
        };
    }
    let penalty = square_norm(&fit.head.weight, samples.classes()) + square_norm(&fit.head.bias, samples.classes());
    (loss + penalty / (2.0 * fit.c)) / s.iter().sum::<f64>()
}

type Path1 =
    fn(&Samples<'_>, &[f64], &mut dyn FnMut(LinearFit) -> vitadapt::error::Result<()>) -> vitadapt::error::Result<()>;

fn fits(path: Path1, samples: &Samples<'_>, grid: &[f64]) -> Vec<LinearFit> {
    let mut fits = Vec::new();
    path(samples, grid, &mut |fit| {
        fits.push(fit);
        Ok(())
    })
    .unwrap();
    fits
}

const LOGISTIC: Path1 = |samples, grid, each| logistic_path(samples, grid, TIGHT, each);
const SVM: Path1 = |samples, grid, each| svm_path(samples, grid, TIGHT, each);

fn compare(kind: &str, path: Path1, objective: fn(&LinearFit, &Samples<'_>) -> f64) {
    let cases = cases();
    for name in CASES {
        let case = &cases[name];
        let data = Data::of(name, case);
        let samples = data.train(case);
        let expected = case[kind].as_array().unwrap();
        let grid: Vec<f64> = expected.iter().map(|fit| fit["c"].as_f64().unwrap()).collect();
        for (fit, expected) in fits(path, &samples, &grid).iter().zip(expected) {
            let at = format!("{name} at C = {}", fit.c);
            let reference = expected["objective"].as_f64().unwrap();
            let gap = objective(fit, &samples) / reference - 1.0;
            assert!(gap.abs() <= 1e-6, "{at}: objective gap {gap:e}");
            assert!((fit.objective / reference - 1.0).abs() <= 1e-5, "{at}: told {} for {reference}", fit.objective);
            assert!(fit.converged, "{at}");
            assert_eq!(fit.head.predict(samples.features()).unwrap(), indices(&expected["predicted"]), "{at}");
            let probabilities = expected["probabilities"].as_array().cloned().unwrap_or_default();
            for (row, expected) in logits(&fit.head, &samples).iter().step_by(7).zip(&probabilities) {
                for (p, expected) in softmax(row).iter().zip(numbers(expected)) {
                    assert!((p - expected).abs() <= 1e-4, "{at}: p {p} for {expected}");
                }
            }
        }
    }
}

#[test]
fn logistic_regression_is_scikit_learns() {
    compare("logistic", LOGISTIC, logistic_objective);
}

#[test]
fn support_vector_machines_are_liblinears() {
    compare("svm", SVM, svm_objective);
}

#[test]
fn a_c_as_good_is_chosen() {
    let case = &cases()["textile"];
    let (data, expected) = (Data::of("textile", case), &case["selection"]);
    let train = data.train(case);
    let held_out = data.rows(train.len()..data.labels.len());
    let grid = log_grid(1e-6, 1e5, 45);
    assert!(grid.iter().zip(numbers(&expected["grid"])).all(|(a, b)| (a / b - 1.0).abs() < 1e-12));
    let spec = ProbeSpec { stopping: TIGHT, ..ProbeSpec::new(ProbeMethod::Logistic) };
    let folds = indices(&expected["folds"]);
    let ways =
        [(ValidationSamples::HeldOut(&held_out), "held_out", 45), (ValidationSamples::Folds(&folds), "by_folds", 225)];
    for (validation, way, solves) in ways {
        let expected = &expected[way];
        let mut told = (0, 0);
        let selection = spec.select(&train, &validation, &grid, &mut |done, total| told = (done, total)).unwrap();
        assert_eq!(told, (solves, solves));
        // A fold has 42 samples, the held-out set 60.
        let scores = numbers(&expected["accuracy"]).into_iter().zip(numbers(&expected["close"]));
        for (point, (accuracy, close)) in selection.path.iter().zip(scores) {
            let (at, apart) = (point.setting, (point.validation_accuracy - accuracy).abs());
            assert!(apart <= close / 60.0, "{way} at C = {at}: {} for {accuracy}", point.validation_accuracy);
            assert!(point.converged);
        }
        // scikit-learn takes the smallest C among equals, this program the one of the lowest cross-entropy.
        let theirs = &selection.path[expected["chosen"].as_u64().unwrap() as usize];
        let ours = &selection.path[selection.chosen];
        assert_eq!(ours.validation_accuracy, theirs.validation_accuracy, "{way}");
        assert!(ours.validation_loss <= theirs.validation_loss, "{way}");
    }
}

#[test]
fn neighbours_vote_as_in_dinov2() {
    let case = &cases()["textile"];
    let data = Data::of("textile", case);
    let train = data.train(case);
    let queries = data.rows(train.len()..data.labels.len());
    for (k, expected) in case["knn"].as_object().unwrap() {
        let knn = Knn { k: k.parse().unwrap() };
        let votes = knn.vote(&train, queries.features()).unwrap();
        let expected: Vec<f64> = expected.as_array().unwrap().iter().flat_map(numbers).collect();
        assert_eq!(votes.shares.len(), expected.len());
        for (share, expected) in votes.shares.iter().zip(&expected) {
            assert!((f64::from(*share) - expected).abs() < 1e-5, "k = {k}: {share} for {expected}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let data = Data::drawn(&[1500, 120, 10, 9]);
    let samples = data.rows(0..1500);
    let grid = log_grid(1e-3, 10.0, 4);
    let run = |path: Path1, threads| -> Vec<LinearHead> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fits(path, &samples, &grid).into_iter().map(|fit| fit.head).collect())
    };
    for path in [LOGISTIC, SVM] {
        assert_eq!(run(path, 1), run(path, 3));
    }
}
