//! Gaussian error linear units (Hendrycks and Gimpel 2016) in the three forms pretrained weights use.

use super::kernels::{contiguous, fused, math, read, simd};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// The activation of the MLP. A wrong one gives plausible, worse numbers and no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), exact: timm, `DINOv2`, google/vit.
    Gelu,
    /// The tanh approximation: `SigLIP`.
    GeluTanh,
    /// x σ(1.702 x): `OpenAI`'s CLIP.
    QuickGelu,
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
const QUICK: f32 = 1.702;

impl Activation {
    /// Element by element; any shape.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        if fused(x) {
            return x.contiguous()?.apply_op1(self);
        }
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            // σ(z) = (1 + tanh(z/2)) / 2 has finite gradients everywhere; 1/(1 + e^-z) has not.
            Self::QuickGelu => x * (((x * f64::from(QUICK / 2.0))?.tanh()? + 1.0)? * 0.5)?,
        }
    }

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        match self {
            Self::Gelu => x * math::normal_cdf(x).0,
            Self::GeluTanh => x * math::sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x)),
            Self::QuickGelu => x * math::sigmoid(QUICK * x),
        }
    }

    #[inline(always)]
    fn derivative(self, x: f32) -> f32 {
        match self {
            Self::Gelu => {
                let (cdf, gauss) = math::normal_cdf(x);
                cdf + x * gauss * 0.398_942_3 // 1 / √(2π)
            }
            Self::GeluTanh => {
                let s = math::sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
                s + x * s * (1.0 - s) * 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x)
            }
            Self::QuickGelu => {
                let s = math::sigmoid(QUICK * x);
                s + x * s * (1.0 - s) * QUICK
            }
        }
    }
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        // The match stands outside the loop so that each loop vectorises.
        match self {
            Self::Gelu => map(x, &mut y, |x| Self::Gelu.value(x)),
            Self::GeluTanh => map(x, &mut y, |x| Self::GeluTanh.value(x)),
            Self::QuickGelu => map(x, &mut y, |x| Self::QuickGelu.value(x)),
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = read(x, |xs| {
            let mut dx = vec![0.0; xs.len()];
            match self {
                Self::Gelu => map(xs, &mut dx, |x| Self::Gelu.derivative(x)),
                Self::GeluTanh => map(xs, &mut dx, |x| Self::GeluTanh.derivative(x)),
                Self::QuickGelu => map(xs, &mut dx, |x| Self::QuickGelu.derivative(x)),
            }
            read(dy, |dy| {
                simd(|| dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx *= dy));
                Ok(())
            })?;
            Ok(dx)
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

fn map(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    simd(|| {
        for (y, x) in y.iter_mut().zip(x) {
            *y = f(*x);
        }
    });
}
