//! The affine map y = x Wᵀ + b, with the bias fused into the product.

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::gemm::{Mat, matmul, product};
use crate::kernels::{Operation, add_rows, keep, read, read_optional, run, widened};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Shape, Tensor, bail};
use std::ops::Range;

/// A linear layer: weight (out, in) and optional bias (out).
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    /// Outputs whose bias is zero and stays so.
    unbiased: Range<usize>,
}

impl Linear {
    /// A layer over existing tensors.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, unbiased: 0..0 }
    }

    /// The same, where some outputs have no bias: theirs is zero, and gets no gradient.
    #[must_use]
    pub fn without_bias(self, unbiased: Range<usize>) -> Self {
        Self { unbiased, ..self }
    }

    /// The bias, through which no gradient reaches outputs that have none.
    fn tracked_bias(&self, bias: &Tensor) -> Result<Tensor> {
        if self.unbiased.is_empty() || !bias.track_op() {
            return Ok(bias.clone());
        }
        let factor = |output: usize| if self.unbiased.contains(&output) { 0f32 } else { 1.0 };
        let factors: Vec<f32> = (0..bias.elem_count()).map(factor).collect();
        bias * Tensor::from_vec(factors, bias.shape(), bias.device())?.to_dtype(bias.dtype())?
    }

    /// The layer without its bias, and the bias, if there is one for each output.
    pub fn bias_apart(&self) -> Option<(Self, Tensor)> {
        let bias = self.bias.as_ref().filter(|_| self.unbiased.is_empty())?;
        Some((Self::new(self.weight.clone(), None), bias.clone()))
    }

    /// The type that its product runs in.
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    /// x (…, in) to (…, out), in the type of the weight.
    ///
    /// # Errors
    /// When the last dimension of `x` is not `in`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = &x.to_dtype(self.dtype())?;
        let (outputs, inputs) = self.weight.dims2()?;
        let op = Affine { inputs, outputs };
        match &self.bias {
            Some(bias) => run(&op, [x, &self.weight, &self.tracked_bias(bias)?]),
            None => run(&op, [x, &self.weight]),
        }
    }

    /// Inputs of a row.
    ///
    /// # Errors
    /// When the weight is not a matrix.
    pub fn inputs(&self) -> Result<usize> {
        self.weight.dim(1)
    }

    /// The bias, if there is one and it is on the CPU.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn with_bias<R>(&self, f: impl FnOnce(Option<&[f32]>) -> Result<R>) -> Result<R> {
        read_optional(self.bias.as_ref(), f)
    }

    /// The values of `part`'s outputs for rows of x, without the bias, added to `beta` y. `at_once` rows make a product:
    /// products of few rows round differently for each number of them, so an image's own must not depend on the batch.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn multiply(&self, part: Range<usize>, x: &[f32], at_once: usize, beta: f32, y: &mut [f32]) -> Result<()> {
        let (inner, out) = (self.inputs()?, part.len());
        let at_once = at_once.min(x.len() / inner).max(1);
        read(&self.weight, |w| {
            let w = Mat::new(&w[part.start * inner..part.end * inner], out, inner);
            let products = x.chunks(at_once * inner).zip(y.chunks_mut(at_once * out));
            products
                .into_iter()
                .try_for_each(|(x, y)| matmul(Mat::new(x, x.len() / inner, inner), w.t(), 1.0, beta, y, out))
        })
    }

    /// Starts y from `part`'s bias in every row, if there is one: the factor of y in the product that is added.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn start_from_bias(&self, part: Range<usize>, y: &mut [f32]) -> Result<f32> {
        self.with_bias(|bias| {
            let Some(bias) = bias else { return Ok(0.0) };
            y.chunks_exact_mut(part.len()).for_each(|row| row.copy_from_slice(&bias[part.clone()]));
            Ok(1.0)
        })
    }

    /// dx = dy W + `beta` dx, where dy has `part`'s outputs.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn backward_input(&self, part: Range<usize>, dy: &[f32], beta: f32, dx: &mut [f32]) -> Result<()> {
        let (inner, out) = (self.inputs()?, part.len());
        read(&self.weight, |w| {
            let w = Mat::new(&w[part.start * inner..part.end * inner], out, inner);
            matmul(Mat::new(dy, dy.len() / out, out), w, 1.0, beta, dx, inner)
        })
    }

    /// Leaves dW = dyᵀ x and db = Σ dy in `store` where they are trained; parts of the outputs may come from rows of their own.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn backward_weights(&self, parts: &[(&[f32], &[f32])], store: &mut GradStore) -> Result<()> {
        let (out, inner) = self.weight.dims2()?;
        let widths = parts.iter().map(|(x, dy)| dy.len() / (x.len() / inner).max(1));
        keep(store, &self.weight, || {
            let of = |(x, dy): &(&[f32], &[f32]), width: usize| {
                let rows = x.len() / inner;
                product(Mat::new(dy, rows, width).t(), Mat::new(x, rows, inner), 1.0)
            };
            match parts {
                [whole] => of(whole, out),
                _ => Ok(parts
                    .iter()
                    .zip(widths.clone())
                    .map(|(part, width)| of(part, width))
                    .collect::<Result<Vec<_>>>()?
                    .concat()),
            }
        })?;
        let Some(bias) = &self.bias else { return Ok(()) };
        keep(store, bias, || {
            let mut db = vec![0.0; out];
            let mut first = 0;
            for ((_, dy), width) in parts.iter().zip(widths) {
                add_rows(dy, &mut db[first..first + width]);
                first += width;
            }
            db[self.unbiased.clone()].fill(0.0);
            Ok(db)
        })
    }

    /// Weight and, if there is one, bias.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self) -> bool {
        self.weight.track_op() || self.bias.as_ref().is_some_and(Tensor::track_op)
    }

    /// Outputs of a row.
    ///
    /// # Errors
    /// When the weight is not a matrix.
    pub fn outputs(&self) -> Result<usize> {
        self.weight.dim(0)
    }
}

/// A linear layer as an operation of x, the weight, and the bias if there is one.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub inputs: usize,
    pub outputs: usize,
}

impl Affine {
    fn shape(self, x: &Shape, weight: &Shape) -> Result<Shape> {
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == self.inputs && weight.elem_count() == self.inputs * self.outputs => {
                *last = self.outputs;
            }
            _ => bail!("linear layer expects {} features, got an input of shape {x:?}", self.inputs),
        }
        Ok(dims.into())
    }

    /// y = x Wᵀ + `beta` y.
    fn forward(self, x: &[f32], weight: &[f32], beta: f32, y: &mut [f32]) -> Result<()> {
        let Self { inputs, outputs } = self;
        let x = Mat::new(x, x.len() / inputs, inputs);
        matmul(x, Mat::new(weight, outputs, inputs).t(), 1.0, beta, y, outputs)
    }

    /// dx = dy W and dW = dyᵀ x, as far as they are wanted.
    fn backward(
        self,
        [x, weight]: [&[f32]; 2],
        dy: &[f32],
        [for_x, for_weight]: [bool; 2],
    ) -> Result<[Option<Vec<f32>>; 2]> {
        let Self { inputs, outputs } = self;
        let (x, dy) = (Mat::new(x, x.len() / inputs, inputs), Mat::new(dy, dy.len() / outputs, outputs));
        let dx = for_x.then(|| product(dy, Mat::new(weight, outputs, inputs), 1.0)).transpose()?;
        Ok([dx, for_weight.then(|| product(dy.t(), x, 1.0)).transpose()?])
    }

    fn composed(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let shape = self.shape(x.shape(), weight.shape())?;
        x.reshape(((), self.inputs))?.matmul(&weight.t()?)?.reshape(shape)
    }
}

/// An operation on a few rows, for the trial.
const SMALL: (Affine, [usize; 3], [usize; 2]) = (Affine { inputs: 24, outputs: 40 }, [3, 30, 24], [40, 24]);

impl Operation<2> for Affine {
    fn name(&self) -> &'static str {
        "linear without bias"
    }

    fn shape(&self, [x, weight]: [&Shape; 2]) -> Result<Shape> {
        Self::shape(*self, x, weight)
    }

    fn forward(&self, [x, weight]: [&[f32]; 2], y: &mut [f32]) -> Result<()> {
        Self::forward(*self, x, weight, 0.0, y)
    }

    fn backward(
        &self,
        operands: [&[f32]; 2],
        _y: &[f32],
        dy: &[f32],
        wanted: [bool; 2],
    ) -> Result<[Option<Vec<f32>>; 2]> {
        Self::backward(*self, operands, dy, wanted)
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, weight]: [cuda::Operand<'_>; 2]) -> Result<CudaStorage> {
        cuda::linear::forward(x, weight, None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [x, weight]: [&Tensor; 2], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        cuda::linear::backward(x, weight, dy).map(Into::into)
    }

    fn composed(&self, [x, weight]: [&Tensor; 2]) -> Result<Tensor> {
        Self::composed(*self, x, weight)
    }

    fn small(&self) -> (Self, [Vec<usize>; 2]) {
        let (op, x, weight) = SMALL;
        (op, [x.into(), weight.into()])
    }
}

impl Operation<3> for Affine {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn shape(&self, [x, weight, bias]: [&Shape; 3]) -> Result<Shape> {
        if bias.elem_count() != self.outputs {
            bail!("linear layer of {} outputs has a bias of shape {bias:?}", self.outputs);
        }
        Self::shape(*self, x, weight)
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], y: &mut [f32]) -> Result<()> {
        y.chunks_exact_mut(self.outputs).for_each(|row| row.copy_from_slice(bias));
        Self::forward(*self, x, weight, 1.0, y)
    }

    fn backward(
        &self,
        [x, weight, _]: [&[f32]; 3],
        _y: &[f32],
        dy: &[f32],
        [for_x, for_weight, for_bias]: [bool; 3],
    ) -> Result<[Option<Vec<f32>>; 3]> {
        let [dx, dw] = Self::backward(*self, [x, weight], dy, [for_x, for_weight])?;
        let sum = || {
            let mut db = vec![0.0; self.outputs];
            add_rows(dy, &mut db);
            db
        };
        Ok([dx, dw, for_bias.then(sum)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, weight, bias]: [cuda::Operand<'_>; 3]) -> Result<CudaStorage> {
        cuda::linear::forward(x, weight, Some(bias))
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, [x, weight, bias]: [&Tensor; 3], _y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let (dx, dw) = cuda::linear::backward(x, weight, dy)?;
        Ok([dx, dw, cuda::linear::bias_gradient(bias, dy)?])
    }

    fn composed(&self, [x, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        // In f32, so that the bias's gradient, a sum over all rows, keeps its digits.
        let product = Self::composed(*self, x, weight)?;
        widened(&product)?.broadcast_add(&widened(bias)?)?.to_dtype(product.dtype())
    }

    fn small(&self) -> (Self, [Vec<usize>; 3]) {
        let (op, x, weight) = SMALL;
        (op, [x.into(), weight.into(), vec![op.outputs]])
    }
}
