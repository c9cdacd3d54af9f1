//! `SwiGLU` (Shazeer 2020): the gated activation of `DINOv2`'s largest models.

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Operation, math, run, simd};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{D, Result, Shape, Tensor};

/// silu(gate) · value: packed (…, 2h), gate first, to (…, h), where silu(x) = x σ(x).
///
/// # Errors
/// When the last dimension is odd.
pub fn swiglu(packed: &Tensor) -> Result<Tensor> {
    run(&SwiGlu::new(packed.dim(D::Minus1)?)?, [packed])
}

/// The operation on slices: silu(gate) · value.
#[derive(Debug, Clone, Copy)]
pub struct SwiGlu {
    /// Width of the gate, of the value, and of the result.
    half: usize,
}

impl SwiGlu {
    /// For packed rows of that width.
    ///
    /// # Errors
    /// When the width is odd.
    pub fn new(packed: usize) -> Result<Self> {
        if !packed.is_multiple_of(2) {
            candle_core::bail!("SwiGLU needs a gate and a value of one width, got {packed} features");
        }
        Ok(Self { half: packed / 2 })
    }

    /// packed (…, 2h) to y (…, h).
    pub fn forward_values(self, packed: &[f32], y: &mut [f32]) {
        let half = self.half;
        simd(|| {
            for (packed, y) in packed.chunks_exact(2 * half).zip(y.chunks_exact_mut(half)) {
                let (gate, value) = packed.split_at(half);
                for i in 0..half {
                    y[i] = gate[i] * math::sigmoid(gate[i]) * value[i];
                }
            }
        });
    }

    /// The gradient of `packed`. With s = σ(gate): dvalue = dy gate s, dgate = dy value s (1 + gate (1 - s)).
    pub fn backward_values(self, packed: &[f32], dy: &[f32], dx: &mut [f32]) {
        let half = self.half;
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
    }
}

impl Operation<1> for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn shape(&self, [packed]: [&Shape; 1]) -> Result<Shape> {
        let mut dims = packed.dims().to_vec();
        match dims.last_mut() {
            Some(width) if *width == 2 * self.half => *width = self.half,
            _ => candle_core::bail!("SwiGLU of {} features got an input of shape {packed:?}", 2 * self.half),
        }
        Ok(dims.into())
    }

    fn forward(&self, [packed]: [&[f32]; 1], y: &mut [f32]) -> Result<()> {
        self.forward_values(packed, y);
        Ok(())
    }

    fn backward(&self, [packed]: [&[f32]; 1], _y: &[f32], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        let mut dx = vec![0.0; packed.len()];
        self.backward_values(packed, dy, &mut dx);
        Ok([Some(dx)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [packed]: [cuda::Operand<'_>; 1]) -> Result<CudaStorage> {
        cuda::activation::swiglu(packed)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [packed]: [&Tensor; 1], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(cuda::activation::swiglu_backward(packed, dy)?)])
    }

    fn composed(&self, [packed]: [&Tensor; 1]) -> Result<Tensor> {
        let half = packed.dim(D::Minus1)? / 2;
        let (gate, value) = (packed.narrow(D::Minus1, 0, half)?, packed.narrow(D::Minus1, half, half)?);
        // σ(z) = (1 + tanh(z/2)) / 2 has finite gradients everywhere; 1/(1 + e^-z) has not.
        let silu = (&gate * (((&gate * 0.5)?.tanh()? + 1.0)? * 0.5)?)?;
        silu * value
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        (Self { half: 40 }, [vec![3, 80]])
    }
}
