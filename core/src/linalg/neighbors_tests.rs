use super::*;
use crate::rng::{Purpose, Stream};
use proptest::prelude::*;

fn random(rows: usize, cols: usize, offset: f64, levels: u64) -> Vec<f32> {
    let mut stream = Stream::new(5, Purpose::Init, &[rows as u64, cols as u64]);
    (0..rows * cols).map(|_| (offset + stream.below(levels) as f64 / levels as f64) as f32).collect()
}

/// The double loop, in f64.
fn brute(queries: Matrix<'_>, base: Matrix<'_>, k: usize, metric: Metric, exclude_self: bool) -> Vec<u32> {
    let mut indices = Vec::new();
    for i in 0..queries.rows() {
        let order = |j: u32| {
            let (q, b) = (queries.row(i), base.row(j as usize));
            match metric {
                Metric::Euclidean => squared_distance(q, b),
                Metric::Cosine => -cosine(dot(q, b), dot(q, q).sqrt() * dot(b, b).sqrt()),
            }
        };
        let others = (0..base.rows() as u32).filter(|&j| !exclude_self || j as usize != i);
        let mut all: Vec<(f64, u32)> = others.map(|j| (order(j), j)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        indices.extend(all.into_iter().take(k).map(|(_, j)| j));
    }
    indices
}

#[test]
fn equals_the_double_loop_far_from_the_origin_and_with_ties() {
    for (offset, levels) in [(0.0, 1 << 20), (1000.0, 1 << 20), (0.0, 2)] {
        let (base, queries) = (random(1100, 7, offset, levels), random(150, 7, offset, levels));
        let (base, queries) = (Matrix::new(&base, 7), Matrix::new(&queries, 7));
        for metric in [Metric::Euclidean, Metric::Cosine] {
            let found = nearest(queries, base, 9, metric, false).unwrap();
            assert_eq!(found.indices, brute(queries, base, 9, metric, false), "{metric:?} {offset} {levels}");
            let found = nearest(base, base, 3, metric, true).unwrap();
            assert_eq!(found.indices, brute(base, base, 3, metric, true), "{metric:?} {offset} {levels}");
        }
    }
}

#[test]
fn duplicates_are_zero_apart_and_huge_values_are_no_nan() {
    let values: Vec<f32> = (0..40).flat_map(|i| [1000.1 + (i / 2) as f32, -3.3, 7.7]).collect();
    let matrix = Matrix::new(&values, 3);
    let found = nearest(matrix, matrix, 1, Metric::Euclidean, true).unwrap();
    assert!(found.distances.iter().all(|&d| d == 0.0), "{found:?}");
    assert_eq!(found.of(7), [6]);
    let huge = [3e38f32, -3e38, 0.0, 1.0];
    let found = nearest(Matrix::new(&huge, 2), Matrix::new(&huge, 2), 2, Metric::Euclidean, false).unwrap();
    assert_eq!(found.indices, [0, 1, 1, 0]);
    assert!(found.distances.iter().all(|d| !d.is_nan()));
}

#[test]
fn similarities_and_sizes() {
    let values = [1f32, 0.0, 0.0, 2.0, 0.0, 0.0, -3.0, 0.0];
    let matrix = Matrix::new(&values, 2);
    let found = nearest(matrix, matrix, 10, Metric::Cosine, true).unwrap();
    assert_eq!((found.k, found.of(0), found.distances_of(0)), (3, &[1, 2, 3][..], &[0.0, 0.0, -1.0][..]));
    assert_eq!(nearest(matrix, Matrix::new(&values[..2], 2), 1, Metric::Cosine, true).unwrap().k, 0);
    assert!(nearest(matrix, Matrix::new(&values, 4), 1, Metric::Cosine, false).is_err());
}

#[test]
fn threads_change_nothing() {
    let values = random(700, 33, 5.0, 1 << 20);
    let matrix = Matrix::new(&values, 33);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| nearest(matrix, matrix, 20, Metric::Euclidean, true).unwrap())
    };
    assert_eq!(run(1), run(3));
}

proptest! {
    #[test]
    fn equals_the_double_loop(rows in 1usize..60, cols in 1usize..40, k in 1usize..70, levels in 1u64..9) {
        let values = random(rows, cols, -0.5, levels);
        let matrix = Matrix::new(&values, cols);
        for metric in [Metric::Euclidean, Metric::Cosine] {
            let found = nearest(matrix, matrix, k, metric, false).unwrap();
            prop_assert_eq!(&found.indices, &brute(matrix, matrix, k, metric, false));
        }
    }
}
