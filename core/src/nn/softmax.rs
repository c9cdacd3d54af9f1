//! Softmax over the last dimension; candle-nn's has no backward.

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Operation, lane_max, lane_sum, math, run, simd, widened};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{D, Result, Tensor};

/// softmax(scale · scores) over the last dimension. Half-precision scores are summed in f32.
pub(super) fn softmax(scores: &Tensor, scale: f64) -> Result<Tensor> {
    run(&Softmax { scale, width: scores.dim(D::Minus1)? }, [scores])
}

#[derive(Clone, Copy)]
pub(super) struct Softmax {
    pub scale: f64,
    /// Length of a row.
    pub width: usize,
}

impl Operation<1> for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn forward(&self, [scores]: [&[f32]; 1], y: &mut [f32]) -> Result<()> {
        let scale = self.scale as f32;
        simd!({
            for (row, y) in scores.chunks_exact(self.width).zip(y.chunks_exact_mut(self.width)) {
                y.iter_mut().zip(row).for_each(|(y, x)| *y = scale * x);
                softmax_row(y);
            }
        });
        Ok(())
    }

    fn backward(&self, _: [&[f32]; 1], y: &[f32], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        let (mut gradient, scale) = (dy.to_vec(), self.scale as f32);
        softmax_rows_backward(&mut gradient, y, self.width);
        gradient.iter_mut().for_each(|value| *value *= scale);
        Ok([Some(gradient)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [scores]: [cuda::Operand<'_>; 1]) -> Result<CudaStorage> {
        cuda::attention::softmax(scores, self.scale as f32)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, _scores: [&Tensor; 1], weights: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(cuda::attention::softmax_backward(weights, dy, self.scale as f32)?)])
    }

    fn composed(&self, [scores]: [&Tensor; 1]) -> Result<Tensor> {
        let scaled = if self.scale == 1.0 { scores.clone() } else { (scores * self.scale)? };
        let wide = widened(&scaled)?;
        let shifted = wide.broadcast_sub(&wide.max_keepdim(D::Minus1)?.detach())?.exp()?;
        shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?.to_dtype(scores.dtype())
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        (Self { scale: 0.5, width: 40 }, [vec![2, 3, 40]])
    }
}

/// A row becomes its softmax.
#[inline(always)]
pub(super) fn softmax_row(row: &mut [f32]) {
    let max = lane_max(row);
    for x in row.iter_mut() {
        *x = math::exp(*x - max);
    }
    let scale = 1.0 / lane_sum([row], |[x]| x);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

/// dp becomes p (dp - Σ dp p), row by row.
pub(super) fn softmax_rows_backward(dp: &mut [f32], p: &[f32], tokens: usize) {
    simd!({
        for (dp, p) in dp.chunks_exact_mut(tokens).zip(p.chunks_exact(tokens)) {
            let dot = lane_sum([dp, p], |[dp, p]| dp * p);
            for (dp, p) in dp.iter_mut().zip(p) {
                *dp = p * (*dp - dot);
            }
        }
    });
}
