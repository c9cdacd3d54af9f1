//! Gaussian error linear units (Hendrycks and Gimpel 2016) in the three forms pretrained weights use.

use super::dropout::Mode;
use super::lora::AdaptedLinear;
#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Operation, add_rows, buffer::Buffer, math, run, simd, widened};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{Result, Tensor};

/// The activation of the MLP. A wrong one gives plausible, worse numbers and no error.
// `activation.cu` knows them by their numbers in this order.
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

/// The same expression for each kind as a constant, so that each loop in it vectorises.
macro_rules! for_each_kind {
    ($activation:expr, |$kind:ident| $run:expr) => {
        for_each_kind!($activation, $kind, $run, Gelu, GeluTanh, QuickGelu)
    };
    ($activation:expr, $kind:ident, $run:expr, $($name:ident),*) => {
        match $activation {
            $(Activation::$name => {
                const $kind: Activation = Activation::$name;
                $run
            })*
        }
    };
}

impl Activation {
    /// Element by element; any shape.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        run(&self, [x])
    }

    /// Of what an affine layer makes of x (…, in), (…, out). On a GPU the bias is added in the same pass over the values,
    /// and backward adds up its gradient in the pass that computes theirs.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's `in`.
    pub fn of_linear(self, layer: &AdaptedLinear, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        match layer.bias_apart().filter(|_| x.device().is_cuda()) {
            Some((product, bias)) => run(&self, [&product.forward(x)?, &bias]),
            None => self.forward(&layer.forward(x, mode)?),
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

    /// The value and the derivative, of which most is the same.
    #[inline(always)]
    fn both(self, x: f32) -> (f32, f32) {
        match self {
            Self::Gelu => {
                let (cdf, gauss) = math::normal_cdf(x);
                (x * cdf, cdf + x * gauss * 0.398_942_3) // 1 / √(2π)
            }
            Self::GeluTanh => {
                let s = math::sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
                (x * s, s + x * s * (1.0 - s) * 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x))
            }
            Self::QuickGelu => {
                let s = math::sigmoid(QUICK * x);
                (x * s, s + x * s * (1.0 - s) * QUICK)
            }
        }
    }

    /// y = f(x + bias) for rows of x.
    pub fn forward_values(self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        for_each_kind!(self, |KIND| map(
            x,
            bias,
            y,
            #[inline(always)]
            |x| KIND.value(x)
        ));
    }

    /// dy becomes dx = dy f'(x + bias), and y = f(x + bias), which the layer behind needs for its weights.
    pub fn backward_values(self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32], dy: &mut [f32]) {
        for_each_kind!(self, |KIND| map_back(
            x,
            bias,
            y,
            dy,
            #[inline(always)]
            |x| KIND.both(x)
        ));
    }
}

impl Operation<1> for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::QuickGelu => "quick_gelu",
        }
    }

    fn forward(&self, [x]: [&[f32]; 1], y: &mut [f32]) -> Result<()> {
        self.forward_values(x, None, y);
        Ok(())
    }

    fn backward(&self, [x]: [&[f32]; 1], _y: &[f32], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        let mut dx = dy.to_vec();
        self.backward_values(x, None, &mut Buffer::new(x.len()), &mut dx);
        Ok([Some(dx)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x]: [cuda::Operand<'_>; 1]) -> Result<CudaStorage> {
        cuda::activation::forward(x, None, *self as usize)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [x]: [&Tensor; 1], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(cuda::activation::backward(x, None, dy, *self as usize)?.0)])
    }

    fn composed(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            // σ(z) = (1 + tanh(z/2)) / 2 has finite gradients everywhere; 1/(1 + e^-z) has not.
            Self::QuickGelu => x * (((x * f64::from(QUICK / 2.0))?.tanh()? + 1.0)? * 0.5)?,
        }
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        (*self, [vec![30, 50]])
    }
}

/// Of x and a bias (d) that is added to it first.
impl Operation<2> for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "bias and gelu",
            Self::GeluTanh => "bias and gelu_tanh",
            Self::QuickGelu => "bias and quick_gelu",
        }
    }

    fn forward(&self, [x, bias]: [&[f32]; 2], y: &mut [f32]) -> Result<()> {
        self.forward_values(x, Some(bias), y);
        Ok(())
    }

    fn backward(&self, [x, bias]: [&[f32]; 2], _y: &[f32], dy: &[f32], _: [bool; 2]) -> Result<[Option<Vec<f32>>; 2]> {
        let (mut dx, mut dbias) = (dy.to_vec(), vec![0.0; bias.len()]);
        self.backward_values(x, Some(bias), &mut Buffer::new(x.len()), &mut dx);
        add_rows(&dx, &mut dbias);
        Ok([Some(dx), Some(dbias)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, bias]: [cuda::Operand<'_>; 2]) -> Result<CudaStorage> {
        cuda::activation::forward(x, Some(bias), *self as usize)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [x, bias]: [&Tensor; 2], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let (dx, dbias) = cuda::activation::backward(x, Some(bias), dy, *self as usize)?;
        Ok([Some(dx), dbias])
    }

    fn composed(&self, [x, bias]: [&Tensor; 2]) -> Result<Tensor> {
        // In f32, so that the bias's gradient, a sum over all rows, keeps its digits.
        let sum = widened(x)?.broadcast_add(&widened(bias)?)?.to_dtype(x.dtype())?;
        Operation::<1>::composed(self, [&sum])
    }

    fn small(&self) -> (Self, [Vec<usize>; 2]) {
        (*self, [vec![3, 30, 40], vec![40]])
    }
}

/// Rows of one width: those of the bias, or all values as one row.
fn width(x: &[f32], bias: Option<&[f32]>) -> usize {
    bias.map_or(x.len(), <[f32]>::len).max(1)
}

#[inline(always)]
fn map(x: &[f32], bias: Option<&[f32]>, y: &mut [f32], f: impl Fn(f32) -> f32) {
    let width = width(x, bias);
    simd!({
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            match bias {
                Some(bias) => y.iter_mut().zip(x).zip(bias).for_each(|((y, x), b)| *y = f(x + b)),
                None => y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x)),
            }
        }
    });
}

/// `f` gives value and derivative.
#[inline(always)]
fn map_back(x: &[f32], bias: Option<&[f32]>, y: &mut [f32], dy: &mut [f32], f: impl Fn(f32) -> (f32, f32)) {
    let width = width(x, bias);
    simd!({
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(dy.chunks_exact_mut(width));
        for ((x, y), dy) in rows {
            let values = x.iter().zip(y).zip(dy);
            match bias {
                Some(bias) => values.zip(bias).for_each(|(((x, y), dy), b)| set(f(x + b), y, dy)),
                None => values.for_each(|((x, y), dy)| set(f(*x), y, dy)),
            }
        }
    });
}

#[inline(always)]
fn set((value, derivative): (f32, f32), y: &mut f32, dy: &mut f32) {
    *y = value;
    *dy *= derivative;
}
