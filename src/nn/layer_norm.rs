//! Layer normalisation (Ba, Kiros and Hinton 2016).

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Fusible, contiguous, gradient_of, keep, lane_sum, read, run, simd};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};

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

#[derive(Clone, Copy)]
struct Normalize {
    eps: f32,
}

impl Fusible<3> for Normalize {
    fn kind(&self) -> &'static str {
        "layer_norm"
    }

    fn kernel(&self, [x, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        x.contiguous()?.apply_op3(weight, bias, *self)
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

impl LayerNorm {
    /// The rows of x, normalised, to y.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn apply(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        let op = Normalize { eps: self.eps };
        read(&self.weight, |w| {
            read(&self.bias, |b| {
                op.forward(x, w, b, y);
                Ok(())
            })
        })
    }

    /// Adds the gradient with respect to x to `dx`, and leaves those of the parameters that learn in `store`.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn apply_backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32], store: &mut GradStore) -> Result<()> {
        let d = self.weight.elem_count();
        let (mut dw, mut db) = (vec![0.0; d], vec![0.0; d]);
        let op = Normalize { eps: self.eps };
        read(&self.weight, |w| {
            op.backward(x, w, dy, dx, &mut dw, &mut db);
            Ok(())
        })?;
        keep(store, &self.weight, || Ok(dw))?;
        keep(store, &self.bias, || Ok(db))
    }

    /// Whether a parameter learns.
    pub fn learns(&self) -> bool {
        self.weight.track_op() || self.bias.track_op()
    }
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (contiguous(s1, l1)?, contiguous(s2, l2)?, contiguous(s3, l3)?);
        let d = weight.len();
        if l1.dims().last() != Some(&d) || bias.len() != d {
            candle_core::bail!("layer norm over {d} features got an input of shape {:?}", l1.shape());
        }
        let mut y = vec![0.0; x.len()];
        self.forward(x, weight, bias, &mut y);
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (x, weight, bias) = (cuda::Operand::new(s1, l1), cuda::Operand::new(s2, l2), cuda::Operand::new(s3, l3));
        Ok((cuda::layer_norm::forward(x, weight, bias, self.eps)?, l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return cuda::layer_norm::backward(x, weight, bias, dy, self.eps);
        }
        let d = weight.elem_count();
        let mut dx = vec![0.0; x.elem_count()];
        let (mut dw, mut db) = (vec![0.0; d], vec![0.0; d]);
        read(x, |xs| {
            read(weight, |w| {
                read(dy, |dy| {
                    self.backward(xs, w, dy, &mut dx, &mut dw, &mut db);
                    Ok(())
                })
            })
        })?;
        Ok((gradient_of(x, dx)?, gradient_of(weight, dw)?, gradient_of(bias, db)?))
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

    fn forward(self, x: &[f32], w: &[f32], b: &[f32], y: &mut [f32]) {
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
    }

    /// With x̂ = (x - mean) rstd and g = dy * w: dx += rstd (g - mean(g) - x̂ mean(g x̂)), dw += Σ dy x̂, db += Σ dy.
    fn backward(self, x: &[f32], w: &[f32], dy: &[f32], dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
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
