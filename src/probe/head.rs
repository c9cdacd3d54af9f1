//! The linear classifier that every probe but kNN ends in.

use crate::error::Result;
use crate::kernels::gemm::{Mat, matmul};
use crate::linalg::Matrix;
use rayon::prelude::*;

/// Rows of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 256;

/// A linear head on raw features: logits = x Wᵀ + b.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearHead {
    /// Row-major (K, d).
    pub weight: Vec<f32>,
    /// (K).
    pub bias: Vec<f32>,
}

impl LinearHead {
    /// From the solver's vectors (outputs, d) and intercepts (outputs) in f64. One vector, the classifier of two
    /// classes, becomes the rows −w/2 and w/2: their softmax is the sigmoid of the one.
    pub(super) fn from_vectors(weight: &[f64], bias: &[f64]) -> Self {
        let rows = |values: &[f64]| -> Vec<f32> {
            if bias.len() == 1 {
                [-0.5, 0.5].iter().flat_map(|half| values.iter().map(move |value| (half * value) as f32)).collect()
            } else {
                values.iter().map(|&value| value as f32).collect()
            }
        };
        Self { weight: rows(weight), bias: rows(bias) }
    }

    /// The number of classes K.
    pub fn classes(&self) -> usize {
        self.bias.len()
    }

    /// Logits (n, K) of features (n, d).
    ///
    /// # Errors
    /// When the features are not as wide as the head.
    pub fn logits(&self, features: Matrix<'_>) -> Result<Vec<f32>> {
        let (classes, cols) = (self.classes(), features.cols());
        let mut logits = vec![0f32; features.rows() * classes];
        let blocks = logits.par_chunks_mut(BLOCK * classes).zip(features.values().par_chunks(BLOCK * cols));
        blocks.try_for_each(|(out, rows)| {
            out.chunks_exact_mut(classes).for_each(|row| row.copy_from_slice(&self.bias));
            let weight = Mat::new(&self.weight, classes, cols).t();
            matmul(Mat::new(rows, rows.len() / cols, cols), weight, 1.0, 1.0, out, classes)
        })?;
        Ok(logits)
    }

    /// The class of the largest logit of each row (n), the first among equals.
    ///
    /// # Errors
    /// When the features are not as wide as the head.
    pub fn predict(&self, features: Matrix<'_>) -> Result<Vec<usize>> {
        Ok(argmax_rows(&self.logits(features)?, self.classes()))
    }
}

/// The index of the largest value, the first among equals.
pub(super) fn first_largest<T: PartialOrd>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// The index of the largest value of each row of `width` values, the first among equals.
pub(super) fn argmax_rows(values: &[f32], width: usize) -> Vec<usize> {
    values.chunks_exact(width.max(1)).map(first_largest).collect()
}

/// The share of predictions that are right; 0 of none.
pub(super) fn accuracy(predicted: &[usize], labels: &[usize]) -> f64 {
    let right = predicted.iter().zip(labels).filter(|(a, b)| a == b).count();
    right as f64 / labels.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_of_many_blocks() {
        let values: Vec<f32> = (0..600).map(|i| i as f32).collect();
        let head = LinearHead { weight: vec![1.0, 0.0, 0.0, 1.0, -1.0, 2.0], bias: vec![0.5, 0.0, 1.0] };
        let logits = head.logits(Matrix::new(&values, 2)).unwrap();
        assert_eq!(logits.len(), 900);
        assert_eq!(logits[897..], [598.5, 599.0, 601.0]);
        assert_eq!(head.predict(Matrix::new(&values, 2)).unwrap()[299], 2);
        assert!(head.logits(Matrix::new(&values, 3)).is_err());
    }

    #[test]
    fn two_rows_for_one_vector() {
        let head = LinearHead::from_vectors(&[2.0, -4.0], &[1.0]);
        assert_eq!(head, LinearHead { weight: vec![-1.0, 2.0, 1.0, -2.0], bias: vec![-0.5, 0.5] });
        assert_eq!(argmax_rows(&[1.0, 1.0, 0.0, 3.0], 2), [0, 1]);
    }
}
