//! LayerScale (Touvron et al. 2021): a learned scale per channel on a residual branch.

use crate::kernels::{contiguous, fused, gradient_of, read, simd};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

/// y = gamma * x over the last dimension: gamma (d).
#[derive(Debug, Clone)]
pub struct LayerScale(Tensor);

impl LayerScale {
    /// A layer over an existing gamma.
    pub fn new(gamma: Tensor) -> Self {
        Self(gamma)
    }

    /// x (…, d) to (…, d).
    ///
    /// # Errors
    /// When the last dimension of `x` is not d.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if fused(x) { x.contiguous()?.apply_op2(&self.0, Scale) } else { x.broadcast_mul(&self.0) }
    }
}

impl LayerScale {
    /// Gamma (d).
    pub fn gamma(&self) -> &Tensor {
        &self.0
    }
}

struct Scale;

impl CustomOp2 for Scale {
    fn name(&self) -> &'static str {
        "layer_scale"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, gamma) = (contiguous(s1, l1)?, contiguous(s2, l2)?);
        if l1.dims().last() != Some(&gamma.len()) {
            candle_core::bail!("layer scale over {} features got an input of shape {:?}", gamma.len(), l1.shape());
        }
        let mut y = vec![0.0; x.len()];
        scale_rows(x, gamma, &mut y);
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, gamma: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d = gamma.elem_count();
        let mut dx = vec![0.0; x.elem_count()];
        let mut dgamma = vec![0.0; d];
        read(dy, |dy| {
            read(gamma, |gamma| {
                scale_rows(dy, gamma, &mut dx);
                Ok(())
            })?;
            read(x, |x| {
                simd(|| {
                    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
                        for i in 0..d {
                            dgamma[i] += x[i] * dy[i];
                        }
                    }
                });
                Ok(())
            })
        })?;
        Ok((gradient_of(x, dx)?, gradient_of(gamma, dgamma)?))
    }
}

fn scale_rows(x: &[f32], gamma: &[f32], y: &mut [f32]) {
    let d = gamma.len();
    simd(|| {
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            for i in 0..d {
                y[i] = x[i] * gamma[i];
            }
        }
    });
}
