//! The first two principal components, where the descent starts.

use crate::error::Result;
use crate::kernels::gemm::{Mat, matmul};
use crate::kernels::simd;
use crate::linalg::Matrix;
use crate::rng::{Purpose, Stream};
use rayon::prelude::*;

/// Vectors of the subspace: more than two, so that close eigenvalues converge, and one register of f64.
const WIDTH: usize = 8;
/// Iterations at most; without a gap in the spectrum no direction is better than another.
const STEPS: usize = 200;
/// Residual at which a direction is found, relative to the largest eigenvalue.
const TOLERANCE: f64 = 1e-6;
/// Rows of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 64;

/// Some vectors of the same length, side by side.
type Subspace = Vec<[f64; WIDTH]>;

/// Each row's coordinates on the first two principal components, up to a common scale. The signs are scikit-learn's
/// (`svd_flip`): the entry of a component that is largest by magnitude is positive.
///
/// Subspace iteration with Rayleigh-Ritz on the smaller of the covariance and the Gram matrix.
///
/// # Errors
/// When the matrix product refuses its shapes: a bug.
pub fn principal_coordinates(features: Matrix<'_>) -> Result<Vec<[f64; 2]>> {
    let (n, d) = (features.rows(), features.cols());
    let centred = centred(features);
    let rows = Mat::new(&centred, n, d);
    let mut components = if d <= n {
        let covariance = products(d, |first| Mat::strided(&centred[first..], n, BLOCK.min(d - first), d).t(), rows)?;
        leading_vectors(&covariance, d)
    } else {
        let gram = products(n, |first| Mat::new(&centred[first * d..], BLOCK.min(n - first), d), rows.t())?;
        let weights = leading_vectors(&gram, n);
        let mut components = vec![[0.0; WIDTH]; d];
        for (row, weights) in centred.chunks_exact(d).zip(&weights) {
            components.iter_mut().zip(row).for_each(|(sum, &x)| add(sum, f64::from(x), weights));
        }
        orthonormalise(&mut components);
        components
    };
    normalise_signs(&mut components);
    let coordinates = centred.par_chunks(d).with_min_len(BLOCK).map(|row| {
        let [first, second, ..] = combination(row, &components);
        [first, second]
    });
    Ok(coordinates.collect())
}

/// The rows less their mean, scaled so that the largest value is 1 and no product overflows.
fn centred(features: Matrix<'_>) -> Vec<f32> {
    let means = features.means();
    let deviations = |row: usize| features.row(row).iter().zip(&means).map(|(&x, mean)| f64::from(x) - mean);
    let largest = (0..features.rows()).flat_map(deviations).fold(0f64, |most, x| most.max(x.abs()));
    let scale = if largest > 0.0 { largest.recip() } else { 0.0 };
    (0..features.rows()).flat_map(deviations).map(|x| (x * scale) as f32).collect()
}

/// The product of `left`, given in blocks of rows from `first` on, with `right`: (size, size).
fn products<'a>(size: usize, left: impl Fn(usize) -> Mat<'a> + Sync, right: Mat<'a>) -> Result<Vec<f32>> {
    let mut out = vec![0f32; size * size];
    out.par_chunks_mut(BLOCK * size)
        .enumerate()
        .try_for_each(|(block, out)| matmul(left(block * BLOCK), right, 1.0, 0.0, out, size))?;
    Ok(out)
}

/// The eigenvectors of the largest eigenvalues of a symmetric matrix, largest first; zero vectors beyond its rank.
fn leading_vectors(matrix: &[f32], size: usize) -> Subspace {
    let mut stream = Stream::new(0, Purpose::Embedding, &[]);
    let mut vectors: Subspace = (0..size).map(|_| std::array::from_fn(|_| stream.normal())).collect();
    orthonormalise(&mut vectors);
    for _ in 0..STEPS {
        let mut images: Subspace =
            matrix.par_chunks(size).with_min_len(BLOCK).map(|row| combination(row, &vectors)).collect();
        let (values, rotation) = eigen(inner_products(&vectors, &images));
        rotate(&mut vectors, &rotation);
        rotate(&mut images, &rotation);
        let residual = |c: usize| {
            vectors.iter().zip(&images).map(|(v, image)| (image[c] - values[c] * v[c]).powi(2)).sum::<f64>().sqrt()
        };
        if (0..2).all(|c| residual(c) <= TOLERANCE * values[0]) {
            break;
        }
        vectors = images;
        orthonormalise(&mut vectors);
    }
    vectors
}

/// Σᵢ row(i) vectors(i).
fn combination(row: &[f32], vectors: &Subspace) -> [f64; WIDTH] {
    simd(|| {
        let mut sum = [0f64; WIDTH];
        row.iter().zip(vectors).for_each(|(&x, v)| add(&mut sum, f64::from(x), v));
        sum
    })
}

#[inline(always)]
fn add(sum: &mut [f64; WIDTH], factor: f64, vector: &[f64; WIDTH]) {
    for c in 0..WIDTH {
        sum[c] += factor * vector[c];
    }
}

/// aᵀ b.
fn inner_products(a: &Subspace, b: &Subspace) -> [[f64; WIDTH]; WIDTH] {
    let mut products = [[0f64; WIDTH]; WIDTH];
    for (a, b) in a.iter().zip(b) {
        (0..WIDTH).for_each(|r| add(&mut products[r], a[r], b));
    }
    products
}

fn rotate(vectors: &mut Subspace, rotation: &[[f64; WIDTH]; WIDTH]) {
    for vector in vectors {
        let mut rotated = [0f64; WIDTH];
        (0..WIDTH).for_each(|r| add(&mut rotated, vector[r], &rotation[r]));
        *vector = rotated;
    }
}

/// Gram and Schmidt, twice for accuracy. A vector that depends on those before it becomes zero.
fn orthonormalise(vectors: &mut Subspace) {
    for c in 0..WIDTH {
        let length = |vectors: &Subspace| vectors.iter().map(|v| v[c] * v[c]).sum::<f64>().sqrt();
        let before = length(vectors);
        for _ in 0..2 {
            for other in 0..c {
                let along: f64 = vectors.iter().map(|v| v[c] * v[other]).sum();
                vectors.iter_mut().for_each(|v| v[c] -= along * v[other]);
            }
        }
        let after = length(vectors);
        let scale = if after > 1e-10 * before { after.recip() } else { 0.0 };
        vectors.iter_mut().for_each(|v| v[c] *= scale);
    }
}

/// Eigenvalues, largest first, and eigenvectors (in columns) of a small symmetric matrix, by Jacobi's rotations.
fn eigen(mut a: [[f64; WIDTH]; WIDTH]) -> ([f64; WIDTH], [[f64; WIDTH]; WIDTH]) {
    const SWEEPS: usize = 12;
    let mut vectors: [[f64; WIDTH]; WIDTH] = std::array::from_fn(|r| std::array::from_fn(|c| f64::from(r == c)));
    for _ in 0..SWEEPS {
        for p in 0..WIDTH {
            for q in p + 1..WIDTH {
                if a[p][q] == 0.0 {
                    continue;
                }
                let (sin, cos) = (0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p])).sin_cos();
                let turn = |x: &mut f64, y: &mut f64| (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                for row in a.iter_mut().chain(&mut vectors) {
                    let [mut x, mut y] = [row[p], row[q]];
                    turn(&mut x, &mut y);
                    [row[p], row[q]] = [x, y];
                }
                let (row_p, row_q) = (a[p], a[q]);
                for c in 0..WIDTH {
                    let (mut x, mut y) = (row_p[c], row_q[c]);
                    turn(&mut x, &mut y);
                    (a[p][c], a[q][c]) = (x, y);
                }
            }
        }
    }
    let mut order: [usize; WIDTH] = std::array::from_fn(|c| c);
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    (order.map(|c| a[c][c]), vectors.map(|row| order.map(|c| row[c])))
}

fn normalise_signs(components: &mut Subspace) {
    for c in 0..2 {
        let largest = components.iter().map(|v| v[c]).fold(0f64, |most, x| if x.abs() > most.abs() { x } else { most });
        if largest < 0.0 {
            components.iter_mut().for_each(|v| v[c] = -v[c]);
        }
    }
}
