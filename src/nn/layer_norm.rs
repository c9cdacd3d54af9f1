//! Layer normalisation (Ba, Kiros and Hinton 2016).

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Operation, keep, lane_sum, read, read_all, run, simd};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backprop::GradStore;
use candle_core::{D, Result, Shape, Tensor, bail};

/// Normalises the last dimension, then scales and shifts it: weight (d), bias (d).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// A layer over existing tensors; `eps` is added to the variance.
    pub fn new(weight: Tensor, bias: Tensor, eps: f32) -> Self {
        Self { weight, bias, eps }
    }

    /// x (…, d) to (…, d), in the type of the weight: statistics of half-precision values would lose their digits.
    ///
    /// # Errors
    /// When the last dimension of `x` is not d.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        run(&Normalize { eps: self.eps }, [&x.to_dtype(self.weight.dtype())?, &self.weight, &self.bias])
    }
}

impl LayerNorm {
    /// The rows of x, normalised, to y.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn forward_values(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        read_all(&[&self.weight, &self.bias], |values| match values {
            [w, b] => Normalize { eps: self.eps }.forward([x, w, b], y),
            _ => Ok(()),
        })
    }

    /// Adds the gradient with respect to x to `dx`, and leaves those of trainable parameters in `store`.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn backward_values(&self, x: &[f32], dy: &[f32], dx: &mut [f32], store: &mut GradStore) -> Result<()> {
        let d = self.weight.elem_count();
        let (mut dw, mut db) = (vec![0.0; d], vec![0.0; d]);
        read(&self.weight, |w| {
            Normalize { eps: self.eps }.add_gradients(x, w, dy, dx, &mut dw, &mut db);
            Ok(())
        })?;
        keep(store, &self.weight, || Ok(dw))?;
        keep(store, &self.bias, || Ok(db))
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self) -> bool {
        self.weight.track_op() || self.bias.track_op()
    }
}

#[derive(Clone, Copy)]
struct Normalize {
    eps: f32,
}

impl Operation<3> for Normalize {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn shape(&self, [x, weight, bias]: [&Shape; 3]) -> Result<Shape> {
        let d = weight.elem_count();
        if x.dims().last() != Some(&d) || bias.elem_count() != d {
            bail!("layer norm over {d} features got an input of shape {x:?}");
        }
        Ok(x.clone())
    }

    fn forward(&self, [x, w, b]: [&[f32]; 3], y: &mut [f32]) -> Result<()> {
        let d = w.len();
        simd(
            #[inline(always)]
            || {
                for (row, out) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
                    let (mean, rstd) = self.moments(row);
                    for (((y, x), w), b) in out.iter_mut().zip(row).zip(w).zip(b) {
                        *y = (x - mean) * rstd * w + b;
                    }
                }
            },
        );
        Ok(())
    }

    fn backward(
        &self,
        [x, w, _]: [&[f32]; 3],
        _y: &[f32],
        dy: &[f32],
        _wanted: [bool; 3],
    ) -> Result<[Option<Vec<f32>>; 3]> {
        let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; w.len()]);
        self.add_gradients(x, w, dy, &mut dx, &mut dw, &mut db);
        Ok([Some(dx), Some(dw), Some(db)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, weight, bias]: [cuda::Operand<'_>; 3]) -> Result<CudaStorage> {
        cuda::layer_norm::forward(x, weight, bias, self.eps)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [x, weight, bias]: [&Tensor; 3], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 3]> {
        cuda::layer_norm::backward(x, weight, bias, dy, self.eps).map(Into::into)
    }

    fn composed(&self, [x, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normalized = centred.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?;
        normalized.broadcast_mul(weight)?.broadcast_add(bias)
    }

    fn small(&self) -> (Self, [Vec<usize>; 3]) {
        (*self, [vec![3, 30, 40], vec![40], vec![40]])
    }
}

impl Normalize {
    /// Mean and reciprocal standard deviation of a row, in two passes: the one-pass variance cancels.
    #[inline(always)]
    fn moments(self, row: &[f32]) -> (f32, f32) {
        let n = row.len() as f32;
        let mean = lane_sum([row], |[x]| x) / n;
        let variance = lane_sum([row], |[x]| (x - mean) * (x - mean)) / n;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }

    /// With x̂ = (x - mean) rstd and g = dy * w: dx += rstd (g - mean(g) - x̂ mean(g x̂)), dw += Σ dy x̂, db += Σ dy.
    fn add_gradients(self, x: &[f32], w: &[f32], dy: &[f32], dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
        let d = w.len();
        simd(
            #[inline(always)]
            || {
                for ((row, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
                    let (mean, rstd) = self.moments(row);
                    let mean_g = lane_sum([dy, w], |[dy, w]| dy * w) / d as f32;
                    let mean_gx = lane_sum([dy, w, row], |[dy, w, x]| dy * w * (x - mean) * rstd) / d as f32;
                    for ((((dx, x), dy), w), (dw, db)) in
                        dx.iter_mut().zip(row).zip(dy).zip(w).zip(dw.iter_mut().zip(db.iter_mut()))
                    {
                        let normalized = (x - mean) * rstd;
                        *dx += rstd * (dy * w - mean_g - normalized * mean_gx);
                        *dw += dy * normalized;
                        *db += dy;
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::trials;

    #[test]
    fn the_trial_of_its_kernel_is_fair() {
        trials::pass(Normalize { eps: 1e-6 }, |dtype| [dtype; 3]);
    }
}
