//! Matrices of features, and what probes and embeddings compute from them.

pub mod distances;
pub mod fft;
pub mod neighbors;

use crate::error::{Error, Result};
use crate::kernels::simd;
use std::ops::Range;

/// A dense row-major matrix of feature vectors: one row per image.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// A view of `values` as rows of `cols` values; an incomplete last row is left out.
    pub fn new(values: &'a [f32], cols: usize) -> Self {
        let whole = values.len() - values.len() % cols.max(1);
        Self { values: &values[..whole], cols: cols.max(1) }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    /// Values per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.cols..(i + 1) * self.cols]
    }

    /// A copy of some rows, in the order of `indices`.
    pub fn select(&self, indices: &[usize]) -> Vec<f32> {
        indices.iter().flat_map(|&i| self.row(i)).copied().collect()
    }

    /// A copy of some columns of all rows, row-major.
    pub fn columns(&self, columns: Range<usize>) -> Vec<f32> {
        (0..self.rows()).flat_map(|i| &self.row(i)[columns.clone()]).copied().collect()
    }

    /// Mean of each column.
    pub fn means(&self) -> Vec<f64> {
        let mut sums = vec![0f64; self.cols];
        simd(|| {
            for row in self.values.chunks_exact(self.cols) {
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
        });
        sums.iter().map(|sum| sum / self.rows().max(1) as f64).collect()
    }

    /// Refuses values that are not numbers or infinite, which would spread silently through every sum.
    ///
    /// # Errors
    /// [`Error::NotFinite`], which names the first such row by `describe`.
    pub fn check_finite(&self, describe: impl Fn(usize) -> String) -> Result<()> {
        match (0..self.rows()).find(|&i| !self.row(i).iter().all(|value| value.is_finite())) {
            None => Ok(()),
            Some(i) => Err(Error::NotFinite(format!("the features of {} are not finite numbers", describe(i)))),
        }
    }
}

/// How many of some labels are of each class; all are below `classes`.
pub fn tally(labels: impl Iterator<Item = usize>, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.for_each(|label| counts[label] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_selected_and_checked() {
        let values = [1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0];
        let matrix = Matrix::new(&values, 2);
        assert_eq!((matrix.rows(), matrix.cols(), matrix.row(2)), (3, 2, &[5.0, 6.0][..]));
        assert_eq!(matrix.select(&[2, 0]), [5.0, 6.0, 1.0, 2.0]);
        let error = matrix.check_finite(|i| format!("image {i}")).unwrap_err();
        assert!(error.to_string().contains("image 1"), "{error}");
    }
}
