//! `SwiGLU` (Shazeer 2020): the gated activation of `DINOv2`'s largest models.

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Fusible, contiguous, math, read, run, simd};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

/// silu(gate) · value: packed (…, 2h), gate first, to (…, h), where silu(x) = x σ(x).
///
/// # Errors
/// When the last dimension is odd.
pub fn swiglu(packed: &Tensor) -> Result<Tensor> {
    let width = packed.dim(D::Minus1)?;
    if !width.is_multiple_of(2) {
        candle_core::bail!("SwiGLU needs a gate and a value of one width, got {width} features");
    }
    run(&SwiGlu, [packed])
}

struct SwiGlu;

impl Fusible<1> for SwiGlu {
    fn kind(&self) -> &'static str {
        "swiglu"
    }

    fn kernel(&self, [packed]: [&Tensor; 1]) -> Result<Tensor> {
        packed.contiguous()?.apply_op1(Self)
    }

    fn composed(&self, [packed]: [&Tensor; 1]) -> Result<Tensor> {
        let half = packed.dim(D::Minus1)? / 2;
        let (gate, value) = (packed.narrow(D::Minus1, 0, half)?, packed.narrow(D::Minus1, half, half)?);
        // σ(z) = (1 + tanh(z/2)) / 2 has finite gradients everywhere; 1/(1 + e^-z) has not.
        let silu = (&gate * (((&gate * 0.5)?.tanh()? + 1.0)? * 0.5)?)?;
        silu * value
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        (Self, [vec![3, 80]])
    }
}

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let packed = contiguous(storage, layout)?;
        let mut dims = layout.dims().to_vec();
        let Some(width) = dims.last_mut() else { candle_core::bail!("SwiGLU got a scalar") };
        *width /= 2;
        let half = *width;
        let mut y = vec![0.0; packed.len() / 2];
        simd(|| {
            for (packed, y) in packed.chunks_exact(2 * half).zip(y.chunks_exact_mut(half)) {
                let (gate, value) = packed.split_at(half);
                for i in 0..half {
                    y[i] = gate[i] * math::sigmoid(gate[i]) * value[i];
                }
            }
        });
        Ok((CpuStorage::F32(y), dims.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let y = cuda::activation::swiglu(cuda::Operand::new(storage, layout))?;
        let mut dims = layout.dims().to_vec();
        if let Some(width) = dims.last_mut() {
            *width /= 2;
        }
        Ok((y, dims.into()))
    }

    /// With s = σ(gate): dvalue = dy gate s, dgate = dy value s (1 + gate (1 - s)).
    fn bwd(&self, packed: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if packed.device().is_cuda() {
            return cuda::activation::swiglu_backward(packed, dy).map(Some);
        }
        let half = packed.dim(D::Minus1)? / 2;
        let mut dx = vec![0.0; packed.elem_count()];
        read(packed, |packed| {
            read(dy, |dy| {
                simd(|| {
                    let rows = packed.chunks_exact(2 * half).zip(dy.chunks_exact(half));
                    for ((packed, dy), dx) in rows.zip(dx.chunks_exact_mut(2 * half)) {
                        let (gate, value) = packed.split_at(half);
                        let (dgate, dvalue) = dx.split_at_mut(half);
                        for i in 0..half {
                            let s = math::sigmoid(gate[i]);
                            dgate[i] = dy[i] * value[i] * s * (1.0 + gate[i] * (1.0 - s));
                            dvalue[i] = dy[i] * gate[i] * s;
                        }
                    }
                });
                Ok(())
            })
        })?;
        Tensor::from_vec(dx, packed.shape(), packed.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::trials;

    #[test]
    fn the_trial_of_its_kernel_is_fair() {
        trials::pass(SwiGlu, |dtype| [dtype]);
    }
}
