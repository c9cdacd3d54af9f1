//! Parts and results beside scikit-learn's, and inputs that leave little to map.

use super::gradient::attraction;
use super::quality::{map_silhouettes, neighborhoods, silhouettes};
use super::*;
use crate::config;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Written by `tests/fixtures/make_tsne_fixtures.py` with scikit-learn.
#[derive(Deserialize)]
struct Reference {
    points: Vec<f32>,
    labels: Vec<usize>,
    principal: Vec<[f64; 2]>,
    dense_p: Probabilities,
    sparse_p: Probabilities,
    gradient: Gradient,
    embedding: Vec<[f64; 2]>,
    perplexity: f64,
    kl: f64,
    trustworthiness: BTreeMap<usize, f64>,
    silhouette_features: Vec<f64>,
    silhouette_map: Vec<f64>,
}

#[derive(Deserialize)]
struct Probabilities {
    points: usize,
    perplexity: f64,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Gradient {
    position: Vec<[f32; 2]>,
    kl: f64,
    values: Vec<[f64; 2]>,
}

const COLS: usize = 10;

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../tests/fixtures/tsne.json")).unwrap()
}

fn affinities(points: Matrix<'_>, k: usize, perplexity: f64) -> Affinities {
    Affinities::new(&nearest(points, points, k, Metric::Euclidean, true).unwrap(), perplexity)
}

/// The defaults.
fn usual() -> TsneSettings {
    config::load(None, &["data.root=images".into()]).unwrap().tsne
}

fn map(values: &[f32], cols: usize, settings: &TsneSettings) -> Result<Embedding> {
    embed(Matrix::new(values, cols), settings, 0, &mut |_, _, _| ControlFlow::Continue(()))
}

fn finite(embedding: &Embedding) -> bool {
    embedding.kl.is_finite() && embedding.points.iter().flatten().all(|value| value.is_finite())
}

/// A cloud as dense as a map is.
fn cloud(n: usize) -> Vec<[f32; 2]> {
    let mut stream = Stream::new(3, Purpose::Embedding, &[n as u64]);
    let spread = (n as f64).sqrt() / 3.0;
    (0..n).map(|_| [0, 1].map(|axis| (spread * (1.0 + f64::from(axis)) * stream.normal()) as f32)).collect()
}

#[test]
fn joint_probabilities_are_scikit_learns() {
    let reference = reference();
    for (expected, k) in [(&reference.dense_p, 29), (&reference.sparse_p, 16)] {
        let n = expected.points;
        let found = affinities(Matrix::new(&reference.points[..n * COLS], COLS), k, expected.perplexity);
        let mut dense = vec![0f64; n * n];
        for i in 0..n {
            let (columns, values) = found.row(i);
            columns.iter().zip(values).for_each(|(&j, &p)| dense[i * n + j as usize] = f64::from(p));
        }
        // Both stop their search anywhere within 1e-5 of the entropy.
        let error = |(a, b): (&f64, &f64)| (a - b).abs() / (b + 1e-5);
        let worst = dense.iter().zip(&expected.values).map(error).fold(0.0, f64::max);
        assert!(worst < 2e-4, "{worst}");
        assert!((dense.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn principal_coordinates_are_scikit_learns_signs_included() {
    let reference = reference();
    let of = |values: &[f32], expected: &[[f64; 2]], cols: usize| {
        let found = pca::principal_coordinates(Matrix::new(values, cols)).unwrap();
        let scale = expected[0][0] / found[0][0];
        assert!(scale > 0.0);
        for (found, expected) in found.iter().zip(expected) {
            (0..2).for_each(|axis| assert!((scale * found[axis] - expected[axis]).abs() < 1e-3));
        }
    };
    of(&reference.points, &reference.principal, COLS);
    // The same points in more dimensions than there are points take the other way, over the Gram matrix.
    let padded: Vec<f32> = reference.points.chunks(COLS).flat_map(|row| [row, &[1.0; 300]].concat()).collect();
    of(&padded, &reference.principal, COLS + 300);
}

#[test]
fn gradient_and_divergence_are_scikit_learns() {
    let Reference { points, gradient, dense_p, .. } = reference();
    let n = dense_p.points;
    let affinities = affinities(Matrix::new(&points[..n * COLS], COLS), n - 1, dense_p.perplexity);
    let (mut pull, mut push) = (vec![[0f32; 2]; n], vec![[0f32; 2]; n]);
    attraction(&affinities, &gradient.position, &mut pull);
    let z = ExactRepulsion::default().forces(&gradient.position, &mut push);
    for ((pull, push), expected) in pull.iter().zip(&push).zip(&gradient.values) {
        for axis in 0..2 {
            let found = 4.0 * (f64::from(pull[axis]) - f64::from(push[axis]) / z);
            assert!((found - expected[axis]).abs() < 1e-5, "{found} {}", expected[axis]);
        }
    }
    let kl = divergence(&affinities, &gradient.position, z);
    assert!((kl - gradient.kl).abs() < 1e-4, "{kl} {}", gradient.kl);
}

#[test]
fn both_ways_of_repulsion_agree() {
    for n in [1, 2, 31, 33, 777] {
        // A point's own share of Z, 1 on paper, is interpolated as well.
        let own_share = 0.01 * n as f64;
        let points = cloud(n);
        let forces = |repulsion: &mut dyn Repulsion| {
            let mut forces = vec![[0f32; 2]; n];
            let z = repulsion.forces(&points, &mut forces);
            (z, forces)
        };
        let (z, exact) = forces(&mut ExactRepulsion::default());
        let size = |forces: &[[f32; 2]]| forces.iter().flatten().map(|f| f64::from(f * f)).sum::<f64>().sqrt();
        let (found_z, found) = forces(&mut GridRepulsion::default());
        let difference: Vec<[f32; 2]> = found.iter().zip(&exact).map(|(a, b)| [a[0] - b[0], a[1] - b[1]]).collect();
        let error = size(&difference) / size(&exact).max(1.0);
        assert!(error < 0.02, "{n} points: force {error}");
        assert!((found_z - z).abs() <= 0.02 * z + own_share, "{n} points: Z {found_z}, not {z}");
    }
}

#[test]
fn the_grid_takes_wide_and_tiny_maps_in_turn() {
    let mut grid = GridRepulsion::default();
    for scale in [1e-4f32, 1.0, 1e4, 1.0] {
        let points: Vec<[f32; 2]> = cloud(300).iter().map(|point| point.map(|value| value * scale)).collect();
        let mut forces = vec![[0f32; 2]; 300];
        let mut exact = forces.clone();
        let (z, expected) = (grid.forces(&points, &mut forces), ExactRepulsion::default().forces(&points, &mut exact));
        // A map wider than the largest grid is coarser, but far from wrong: nothing is near anything there.
        let tolerance = if scale > 100.0 { 300.0 } else { 0.02 * expected };
        assert!((z - expected).abs() <= tolerance, "{scale}: {z}, not {expected}");
        assert!(forces.iter().flatten().all(|force| force.is_finite()));
    }
    assert!(grid.forces(&[[f32::NAN, 0.0]], &mut [[0.0; 2]]).is_nan());
}

#[test]
fn the_map_is_as_good_as_scikit_learns() {
    let reference = reference();
    // With so few points the grid ends in a slightly worse minimum; `Auto` does not use it here.
    for (method, bound) in [(TsneMethod::Auto, 1.01), (TsneMethod::Interpolation, 1.1)] {
        let options = TsneSettings { perplexity: reference.perplexity, method, ..usual() };
        let mut reports = Vec::new();
        let found = embed(Matrix::new(&reference.points, COLS), &options, 0, &mut |iteration, total, kl| {
            reports.push((iteration, total, kl));
            ControlFlow::Continue(())
        });
        let found = found.unwrap();
        // scikit-learn's own method here sums P over all pairs; ours leaves out the far ones.
        assert!(found.kl < bound * reference.kl, "{method:?}: {} against {}", found.kl, reference.kl);
        // Two descents of 1000 iterations, of which the lower counts.
        assert_eq!((reports.len(), reports[39].0, reports[39].1), (40, 2000, 2000));
        let lower = reports[19].2.min(reports[39].2);
        assert!((lower - found.kl).abs() < 0.01 * found.kl, "{method:?}: {reports:?}");
        let trust = neighborhoods(Matrix::new(&reference.points, COLS), &found.points, 12).unwrap().unwrap();
        assert!(trust.trustworthiness > reference.trustworthiness[&12] - 0.005, "{method:?}: {trust:?}");
    }
}

#[test]
fn quality_is_scikit_learns() {
    let reference = reference();
    let features = Matrix::new(&reference.points, COLS);
    for (&k, expected) in &reference.trustworthiness {
        let found = neighborhoods(features, &reference.embedding, k).unwrap().unwrap();
        assert!((found.trustworthiness - expected).abs() < 1e-6, "{found:?} {expected}");
        assert!(found.preservation > 0.3 && found.preservation < 1.0);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    for (found, expected) in [
        (silhouettes(features, &reference.labels, 7).unwrap().unwrap(), &reference.silhouette_features),
        (map_silhouettes(&reference.embedding, &reference.labels, 7).unwrap().unwrap(), &reference.silhouette_map),
    ] {
        assert!((found.mean - mean(expected)).abs() < 1e-5);
        for (class, found) in found.per_class.iter().enumerate().take(6) {
            assert!((found.unwrap() - mean(&expected[40 * class..40 * (class + 1)])).abs() < 1e-5);
        }
        assert_eq!(found.per_class[6], None);
    }
}

#[test]
fn quality_of_little() {
    let line: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let kept: Vec<[f64; 2]> = line.iter().map(|&x| [f64::from(x), 0.0]).collect();
    let found = neighborhoods(Matrix::new(&line, 1), &kept, 12).unwrap().unwrap();
    assert_eq!((found.k, found.trustworthiness, found.preservation), (2, 1.0, 1.0));
    assert_eq!(neighborhoods(Matrix::new(&line[..3], 1), &kept[..3], 12).unwrap(), None);
    assert_eq!(silhouettes(Matrix::new(&line, 1), &[0; 6], 2).unwrap(), None);
    let one_alone = silhouettes(Matrix::new(&line[..3], 1), &[0, 0, 1], 2).unwrap().unwrap();
    assert_eq!(one_alone.per_class[1], Some(0.0));
}

#[test]
fn few_points_and_a_clamped_perplexity() {
    let values: Vec<f32> = (0..60).map(|i| ((i * 37) % 23) as f32).collect();
    for n in [1, 2, 3, 4, 10] {
        let found = map(&values[..3 * n], 3, &usual()).unwrap();
        assert!(finite(&found) && found.points.len() == n, "{found:?}");
        assert_eq!(found.perplexity, ((n as f64 - 1.0) / 3.0).max(1.0));
        assert!(found.warnings[0].contains(&format!("too large for {n} point")), "{:?}", found.warnings);
    }
    assert!(map(&[], 3, &usual()).unwrap_err().to_string().contains("no points"));
}

#[test]
fn duplicates_get_positions_of_their_own() {
    let options = TsneSettings { perplexity: 5.0, iterations: 300, ..usual() };
    let all_alike = map(&[2.5; 40 * 3], 3, &options).unwrap();
    let some_alike: Vec<f32> = (0..40).flat_map(|i: usize| [(i / 8) as f32, 1.0, ((i / 8) % 2) as f32]).collect();
    for found in [all_alike, map(&some_alike, 3, &options).unwrap()] {
        assert!(finite(&found));
        for i in 1..40 {
            assert_ne!(found.points[i], found.points[i - 1]);
        }
    }
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let values: Vec<f32> = (0..30).map(|i| i as f32).collect();
    for (settings, said) in [
        (TsneSettings { perplexity: 0.0, ..usual() }, "tsne.perplexity is 0"),
        (TsneSettings { perplexity: f64::NAN, ..usual() }, "tsne.perplexity is NaN"),
        (TsneSettings { learning_rate: Some(0.0), ..usual() }, "tsne.learning_rate is 0"),
    ] {
        assert_eq!(map(&values, 3, &settings).unwrap_err().to_string(), said);
    }
    let mut broken = values.clone();
    broken[7] = f32::NAN;
    assert!(map(&broken, 3, &usual()).unwrap_err().to_string().contains("point 2"));
    let wild = TsneSettings { learning_rate: Some(1e300), ..usual() };
    assert!(matches!(map(&values, 3, &wild), Err(Error::Numerics(_))));
}

#[test]
fn the_observer_ends_the_descent() {
    let values: Vec<f32> = (0..60).map(|i| (i % 11) as f32).collect();
    let found = embed(Matrix::new(&values, 3), &usual(), 0, &mut |_, _, _| ControlFlow::Break(())).unwrap();
    assert!(found.iterations == 50 && finite(&found));
}

#[test]
fn threads_change_nothing() {
    let reference = reference();
    for method in [TsneMethod::Exact, TsneMethod::Interpolation] {
        let options = TsneSettings { method, iterations: 300, ..usual() };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| map(&reference.points, COLS, &options).unwrap())
        };
        assert_eq!(run(1), run(3), "{method:?}");
    }
}
