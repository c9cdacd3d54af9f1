//! Fewer samples than features: an orthogonal change of coordinates after which only as many features remain.
//!
//! With G = X Xᵀ = L Lᵀ (Cholesky with pivots, L is (n, r), r the rank), X = L Q where Q has r orthonormal rows. A
//! penalised linear classifier on L has the same optimum as on X: w = Qᵀ v keeps every score and the norm.

use super::head::first_largest;
use crate::error::Result;
use crate::kernels::gemm::{Mat, matmul};
use crate::kernels::simd;
use crate::linalg::Matrix;
use rayon::prelude::*;

/// Squared length, relative to the longest row's, below which what is left of a row is rounding.
const RANK_TOLERANCE: f64 = 1e-12;
/// Rows of the Gram matrix of one task.
const BLOCK: usize = 64;

/// The rotated features, and what maps weights back.
pub(super) struct Rotation {
    rank: usize,
    /// L (n, r), row-major.
    features: Vec<f32>,
    /// The pivot rows of L (r, r): lower triangular.
    triangle: Vec<f64>,
    /// The pivot rows of X (r, d).
    pivots: Vec<f64>,
    cols: usize,
}

impl Rotation {
    /// Whether the change of coordinates pays: its cost is a few products, its gain a share of all of them.
    pub(super) fn pays(features: Matrix<'_>) -> bool {
        4 * features.rows() <= 3 * features.cols()
    }

    /// Rotates rows (n, d).
    pub(super) fn new(features: Matrix<'_>) -> Result<Self> {
        let (n, cols) = (features.rows(), features.cols());
        let wide: Vec<f64> = features.values().iter().map(|&x| f64::from(x)).collect();
        let mut gram = vec![0f64; n * n];
        gram.par_chunks_mut(BLOCK * n).zip(wide.par_chunks(BLOCK * cols)).try_for_each(|(out, rows)| {
            let rows = Mat::new(rows, rows.len() / cols, cols);
            matmul(rows, Mat::new(&wide, n, cols).t(), 1.0, 0.0, out, n)
        })?;
        let (factor, order) = pivoted_cholesky(&gram, n);
        let rank = order.len();
        let rows_of = |values: &[f64], width: usize, take: usize| -> Vec<f64> {
            order.iter().flat_map(|&i| values[i * width..i * width + take].iter().copied()).collect()
        };
        let features = factor.chunks_exact(n).flat_map(|row| row[..rank].iter().map(|&x| x as f32)).collect();
        Ok(Self { rank, features, triangle: rows_of(&factor, n, rank), pivots: rows_of(&wide, cols, cols), cols })
    }

    /// The features in the new coordinates (n, r).
    pub(super) fn features(&self) -> Matrix<'_> {
        Matrix::new(&self.features, self.rank)
    }

    /// Weights (outputs, r) for the rotated features as weights (outputs, d) for the original ones: v L⁻¹ X over the
    /// pivot rows.
    pub(super) fn back(&self, weight: &[f64]) -> Result<Vec<f64>> {
        let rank = self.rank;
        let outputs = weight.len() / rank.max(1);
        let mut solved = weight.to_vec();
        for row in solved.chunks_exact_mut(rank.max(1)) {
            for j in (0..rank).rev() {
                let (before, rest) = row.split_at_mut(j);
                rest[0] /= self.triangle[j * rank + j];
                let value = rest[0];
                before.iter_mut().zip(&self.triangle[j * rank..]).for_each(|(sum, l)| *sum -= value * l);
            }
        }
        let mut out = vec![0f64; outputs * self.cols];
        matmul(
            Mat::new(&solved, outputs, rank),
            Mat::new(&self.pivots, rank, self.cols),
            1.0,
            0.0,
            &mut out,
            self.cols,
        )?;
        Ok(out)
    }
}

/// L (n, n; columns from the rank on are zero) with L Lᵀ = `gram`, and the rows taken as pivots, in order. The rank is
/// at least 1.
fn pivoted_cholesky(gram: &[f64], n: usize) -> (Vec<f64>, Vec<usize>) {
    let mut factor = vec![0f64; n * n];
    let mut left: Vec<f64> = (0..n).map(|i| gram[i * n + i]).collect();
    let largest = left.iter().copied().fold(0.0, f64::max);
    let mut order = Vec::with_capacity(n);
    let mut taken = vec![false; n];
    for column in 0..n {
        let pivot = first_largest(&left);
        if column > 0 && left[pivot] <= RANK_TOLERANCE * largest {
            break;
        }
        order.push(pivot);
        let root = left[pivot].max(f64::MIN_POSITIVE).sqrt();
        let pivot_row = factor[pivot * n..pivot * n + column].to_vec();
        for i in 0..n {
            let row = &mut factor[i * n..=i * n + column];
            let known = simd(|| {
                row[..column].chunks(8).zip(pivot_row.chunks(8)).fold([0f64; 8], |mut lanes, (a, b)| {
                    lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
                    lanes
                })
            });
            // Rows taken before have nothing left but rounding: exact zeros keep the triangle a triangle.
            let value = match i {
                _ if taken[i] => 0.0,
                _ if i == pivot => root,
                _ => (gram[i * n + pivot] - known.iter().sum::<f64>()) / root,
            };
            row[column] = value;
            left[i] -= value * value;
        }
        left[pivot] = 0.0;
        taken[pivot] = true;
    }
    (factor, order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn scores_and_norms_are_kept() {
        let (n, d) = (9, 40);
        let mut stream = Stream::new(1, Purpose::Init, &[]);
        let mut values: Vec<f32> = (0..n * d).map(|_| stream.normal() as f32).collect();
        values.copy_within(0..d, 3 * d); // a duplicate: rank 8
        let features = Matrix::new(&values, d);
        let rotation = Rotation::new(features).unwrap();
        assert_eq!(rotation.features().cols(), 8);
        let weight: Vec<f64> = (0..16).map(|_| stream.normal()).collect();
        let back = rotation.back(&weight).unwrap();
        for output in 0..2 {
            let (v, w) = (&weight[output * 8..][..8], &back[output * d..][..d]);
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
            assert!((norm(v) / norm(w) - 1.0).abs() < 1e-9);
            for i in 0..n {
                let score = |row: &[f32], w: &[f64]| row.iter().zip(w).map(|(&x, w)| f64::from(x) * w).sum::<f64>();
                let (a, b) = (score(rotation.features().row(i), v), score(features.row(i), w));
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn rows_of_zeros_have_a_rotation() {
        let values = [0f32; 12];
        let rotation = Rotation::new(Matrix::new(&values, 6)).unwrap();
        assert_eq!(rotation.features().values(), [0.0, 0.0]);
        assert!(rotation.back(&[1.0]).unwrap().iter().all(|w| w.is_finite()));
    }
}
