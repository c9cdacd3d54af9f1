//! The matrix product on strided views, single-threaded, through the `gemm` crate.

use candle_core::{Result, bail};

/// The number types of the products: f32 for layers, f64 where small differences of large sums matter.
pub trait Real: Copy + PartialEq + Default + Send + Sync + 'static {}

impl Real for f32 {}
impl Real for f64 {}

/// A strided read-only matrix inside a slice.
#[derive(Clone, Copy)]
pub struct Mat<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Real> Mat<'a, T> {
    /// A row-major matrix whose rows lie `row_stride` values apart.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// A dense row-major matrix.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// The transposed view.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// `out = alpha * a b + beta * out`, where row i of `out` starts at `i * out_stride`.
///
/// # Errors
/// When the shapes disagree or a view leaves its slice.
pub fn matmul<T: Real>(
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    alpha: T,
    beta: T,
    out: &mut [T],
    out_stride: usize,
) -> Result<()> {
    let (m, n) = (a.rows, b.cols);
    if out_stride < n || (m > 0 && (m - 1) * out_stride + n > out.len()) {
        bail!("a matrix of {m}x{n} does not fit its buffer");
    }
    // SAFETY: every element that is written, or read for a `beta`, lies in the slice.
    #[allow(unsafe_code)] // the crate has no safe entry point
    unsafe {
        multiply(a, b, alpha, beta, out.as_mut_ptr(), out_stride)
    }
}

/// `alpha * a b` as a new row-major matrix, in memory that is not zeroed first.
///
/// # Errors
/// When the shapes disagree or a view leaves its slice.
pub fn product<T: Real>(a: Mat<'_, T>, b: Mat<'_, T>, alpha: T) -> Result<Vec<T>> {
    let len = a.rows * b.cols;
    let mut out = Vec::with_capacity(len);
    // SAFETY: with `beta` = 0 the product is written to all `len` places, which the vector has room for, and none is read.
    #[allow(unsafe_code)] // zeroing a gradient that is then overwritten costs as much as a tenth of its product
    unsafe {
        multiply(a, b, alpha, T::default(), out.as_mut_ptr(), b.cols)?;
        out.set_len(if a.cols == 0 { 0 } else { len });
    }
    out.resize(len, T::default());
    Ok(out)
}

/// # Safety
/// `out` has room for `a.rows` rows of `b.cols` values, `out_stride` apart, and holds values when `beta` is not 0.
#[allow(unsafe_code)] // see the callers
unsafe fn multiply<T: Real>(
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    alpha: T,
    beta: T,
    out: *mut T,
    out_stride: usize,
) -> Result<()> {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if k != b.rows || !fits(&a) || !fits(&b) {
        bail!("matrix product of {m}x{k} and {}x{n} does not fit its buffers", b.rows);
    }
    // SAFETY: every index of the views of `a` and `b` was checked to lie inside its slice; the caller vouches for `out`,
    // which it holds mutably, so that it aliases neither input. gemm requires nothing else of f32 and f64 operands.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            out_stride as isize,
            beta != T::default(),
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    Ok(())
}

fn fits<T: Real>(x: &Mat<'_, T>) -> bool {
    x.rows == 0 || x.cols == 0 || (x.rows - 1) * x.row_stride + (x.cols - 1) * x.col_stride < x.data.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_of_strided_views_accumulates() {
        let a = [1., 2., 9., 3., 4., 9.]; // 2x2 with row stride 3
        let b = [5., 6., 7., 8.];
        let mut out = [1., 1., 0., 1., 1., 0.];
        matmul(Mat::strided(&a, 2, 2, 3), Mat::new(&b, 2, 2).t(), 2.0, 1.0, &mut out, 3).unwrap();
        assert_eq!(out, [35., 47., 0., 79., 107., 0.]);
    }

    #[test]
    fn a_new_product_is_whole() {
        let a = [1., 2., 3., 4.];
        assert_eq!(product(Mat::new(&a, 2, 2), Mat::new(&a, 2, 2), 0.5).unwrap(), [3.5, 5., 7.5, 11.]);
        assert_eq!(product::<f32>(Mat::new(&[], 2, 0), Mat::new(&[], 0, 2), 1.0).unwrap(), [0.; 4]);
    }

    #[test]
    fn views_outside_their_slice_are_refused() {
        let a = [0f32; 5];
        assert!(matmul(Mat::new(&a, 2, 3), Mat::new(&a, 3, 1), 1.0, 0.0, &mut [0.0; 2], 1).is_err());
    }
}
