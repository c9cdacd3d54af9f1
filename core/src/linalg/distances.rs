//! All distances between the rows of a matrix, a row at a time.

use super::Matrix;
use crate::error::Result;
use crate::kernels::gemm::{Mat, matmul};
use crate::kernels::simd;
use rayon::prelude::*;

/// Rows of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 64;

/// Calls `f(i, squared distances from row i to every row)` for each row and collects the answers. Distances come from
/// blocked products of the centred rows in f32: never negative, 0 to itself, otherwise within rounding.
///
/// # Errors
/// When the matrix product refuses its shapes: a bug.
pub fn map_squared_distances<R: Send>(matrix: Matrix<'_>, f: impl Fn(usize, &[f32]) -> R + Sync) -> Result<Vec<R>> {
    let (n, d) = (matrix.rows(), matrix.cols());
    let means = matrix.means();
    let centre = |row: usize| matrix.row(row).iter().zip(&means).map(|(&x, mean)| (f64::from(x) - mean) as f32);
    let centred: Vec<f32> = (0..n).flat_map(centre).collect();
    let norms: Vec<f32> = centred.chunks_exact(d).map(|row| row.iter().map(|x| x * x).sum()).collect();
    let blocks: Vec<usize> = (0..n).step_by(BLOCK).collect();
    let mapped: Vec<Vec<R>> = blocks
        .par_iter()
        .map(|&first| {
            let count = BLOCK.min(n - first);
            let mut distances = vec![0f32; count * n];
            let rows = Mat::new(&centred[first * d..(first + count) * d], count, d);
            matmul(rows, Mat::new(&centred, n, d).t(), -2.0, 0.0, &mut distances, n)?;
            let finish = |(lane, row): (usize, &mut [f32])| {
                let i = first + lane;
                let own = norms[i];
                simd(|| row.iter_mut().zip(&norms).for_each(|(d, norm)| *d = (*d + own + norm).max(0.0)));
                row[i] = 0.0;
                f(i, row)
            };
            Ok(distances.chunks_exact_mut(n).enumerate().map(finish).collect())
        })
        .collect::<Result<_>>()?;
    Ok(mapped.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_the_plain_ones() {
        let values: Vec<f32> = (0..150 * 5).map(|i| 100.0 + ((i * 7919) % 1013) as f32 / 100.0).collect();
        let matrix = Matrix::new(&values, 5);
        let worst = map_squared_distances(matrix, |i, distances| {
            let error = |(j, &found): (usize, &f32)| {
                let plain: f32 = matrix.row(i).iter().zip(matrix.row(j)).map(|(a, b)| (a - b) * (a - b)).sum();
                assert!(found >= 0.0 && (i != j || found == 0.0));
                (plain - found).abs()
            };
            distances.iter().enumerate().map(error).fold(0f32, f32::max)
        });
        assert!(worst.unwrap().into_iter().fold(0f32, f32::max) < 1e-3);
    }
}
