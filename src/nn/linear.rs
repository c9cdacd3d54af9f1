//! The affine map y = x Wᵀ + b, with the bias fused into the product.

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::gemm::{Mat, matmul, product};
use crate::kernels::{Fusible, add_rows, contiguous, keep, read, run};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};
use std::ops::Range;

/// A linear layer: weight (out, in) and optional bias (out).
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A layer over existing tensors.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
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
        match &self.bias {
            Some(bias) => run(&Affine, [x, &self.weight, bias]),
            None => run(&Affine, [x, &self.weight]),
        }
    }

    /// Inputs of a row.
    ///
    /// # Errors
    /// When the weight is no matrix.
    pub fn inputs(&self) -> Result<usize> {
        self.weight.dim(1)
    }

    /// The bias, if there is one and it is on the CPU.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn with_bias<R>(&self, f: impl FnOnce(Option<&[f32]>) -> Result<R>) -> Result<R> {
        match &self.bias {
            Some(bias) => read(bias, |bias| f(Some(bias))),
            None => f(None),
        }
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

    /// y = x Wᵀ + b for `part`'s outputs; see [`Linear::multiply`].
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn apply(&self, part: Range<usize>, x: &[f32], at_once: usize, y: &mut [f32]) -> Result<()> {
        let beta = self.with_bias(|bias| {
            let Some(bias) = bias else { return Ok(0.0) };
            y.chunks_exact_mut(part.len()).for_each(|row| row.copy_from_slice(&bias[part.clone()]));
            Ok(1.0)
        })?;
        self.multiply(part, x, at_once, beta, y)
    }

    /// dx = dy W + `beta` dx, where dy has `part`'s outputs.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn back_to_input(&self, part: Range<usize>, dy: &[f32], beta: f32, dx: &mut [f32]) -> Result<()> {
        let (inner, out) = (self.inputs()?, part.len());
        read(&self.weight, |w| {
            let w = Mat::new(&w[part.start * inner..part.end * inner], out, inner);
            matmul(Mat::new(dy, dy.len() / out, out), w, 1.0, beta, dx, inner)
        })
    }

    /// Leaves dW = dyᵀ x and db = Σ dy in `store` where they learn; parts of the outputs may come from rows of their own.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn back_to_weights(&self, parts: &[(&[f32], &[f32])], store: &mut GradStore) -> Result<()> {
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
            Ok(db)
        })
    }

    /// Whether a parameter learns.
    pub fn learns(&self) -> bool {
        self.weight.track_op() || self.bias.as_ref().is_some_and(Tensor::track_op)
    }

    /// Outputs of a row.
    ///
    /// # Errors
    /// When the weight is no matrix.
    pub fn outputs(&self) -> Result<usize> {
        self.weight.dim(0)
    }

    /// The outputs of an input of that shape by the CPU kernel, without a graph.
    pub(super) fn values(&self, x: &[f32], shape: &Shape) -> Result<(Vec<f32>, Shape)> {
        read(&self.weight, |w| match &self.bias {
            Some(bias) => read(bias, |bias| Affine::forward(x, shape, w, self.weight.shape(), Some(bias))),
            None => Affine::forward(x, shape, w, self.weight.shape(), None),
        })
    }

    /// The values of dx = dy W; none when nothing asks for the gradient of `x`.
    pub(super) fn input_gradient(&self, x: &Tensor, dy: &Tensor) -> Result<Option<Vec<f32>>> {
        x.track_op().then(|| read(dy, |dy| Affine::input_gradient(x.elem_count(), &self.weight, dy))).transpose()
    }
}

struct Affine;

impl Affine {
    fn forward(x: &[f32], x_shape: &Shape, w: &[f32], w_shape: &Shape, b: Option<&[f32]>) -> Result<(Vec<f32>, Shape)> {
        let (out, inner) = w_shape.dims2()?;
        let mut dims = x_shape.dims().to_vec();
        if dims.last() != Some(&inner) {
            candle_core::bail!("linear layer expects {inner} features, got an input of shape {x_shape:?}");
        }
        let rows = x_shape.elem_count() / inner;
        let mut y = match b {
            Some(b) => b.repeat(rows),
            None => vec![0.0; rows * out],
        };
        let beta = if b.is_some() { 1.0 } else { 0.0 };
        matmul(Mat::new(x, rows, inner), Mat::new(w, out, inner).t(), 1.0, beta, &mut y, out)?;
        if let Some(last) = dims.last_mut() {
            *last = out;
        }
        Ok((y, dims.into()))
    }

    /// dx = dy W, `values` many.
    fn input_gradient(values: usize, w: &Tensor, dy: &[f32]) -> Result<Vec<f32>> {
        let (out, inner) = w.dims2()?;
        read(w, |w| product(Mat::new(dy, values / inner, out), Mat::new(w, out, inner), 1.0))
    }

    /// dx = dy W and dW = dyᵀ x, each only when asked for.
    fn backward(x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (out, inner) = w.dims2()?;
        let rows = x.elem_count() / inner;
        read(dy, |dy| {
            let dx = if x.track_op() {
                let dx = Self::input_gradient(x.elem_count(), w, dy)?;
                Some(Tensor::from_vec(dx, x.shape(), x.device())?)
            } else {
                None
            };
            let dy = Mat::new(dy, rows, out);
            let dw = if w.track_op() {
                let dw = read(x, |x| product(dy.t(), Mat::new(x, rows, inner), 1.0))?;
                Some(Tensor::from_vec(dw, (out, inner), x.device())?)
            } else {
                None
            };
            Ok((dx, dw))
        })
    }
}

impl Fusible<2> for Affine {
    fn kind(&self) -> &'static str {
        "linear without bias"
    }

    fn kernel(&self, [x, weight]: [&Tensor; 2]) -> Result<Tensor> {
        x.contiguous()?.apply_op2(weight, Self)
    }

    fn composed(&self, [x, weight]: [&Tensor; 2]) -> Result<Tensor> {
        let (out, inner) = weight.dims2()?;
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = out;
        }
        x.reshape(((), inner))?.matmul(&weight.t()?)?.reshape(dims)
    }

    fn small(&self) -> (Self, [Vec<usize>; 2]) {
        (Self, [vec![3, 30, 24], vec![40, 24]])
    }
}

impl Fusible<3> for Affine {
    fn kind(&self) -> &'static str {
        "linear"
    }

    fn kernel(&self, [x, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        x.contiguous()?.apply_op3(weight, bias, Self)
    }

    fn composed(&self, [x, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        Fusible::<2>::composed(self, [x, weight])?.broadcast_add(bias)
    }

    fn small(&self) -> (Self, [Vec<usize>; 3]) {
        (Self, [vec![3, 30, 24], vec![40, 24], vec![40]])
    }
}

impl CustomOp2 for Affine {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, shape) = Self::forward(contiguous(s1, l1)?, l1.shape(), contiguous(s2, l2)?, l2.shape(), None)?;
        Ok((CpuStorage::F32(y), shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::linear::forward(cuda::Operand::new(s1, l1), cuda::Operand::new(s2, l2), None)
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return cuda::linear::backward(x, w, dy);
        }
        Self::backward(x, w, dy)
    }
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "linear"
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
        let bias = Some(contiguous(s3, l3)?);
        let (y, shape) = Self::forward(contiguous(s1, l1)?, l1.shape(), contiguous(s2, l2)?, l2.shape(), bias)?;
        Ok((CpuStorage::F32(y), shape))
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
        let bias = Some(cuda::Operand::new(s3, l3));
        cuda::linear::forward(cuda::Operand::new(s1, l1), cuda::Operand::new(s2, l2), bias)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let (dx, dw) = cuda::linear::backward(x, w, dy)?;
            return Ok((dx, dw, cuda::linear::bias_gradient(b, dy)?));
        }
        let (dx, dw) = Self::backward(x, w, dy)?;
        let db = if b.track_op() {
            let mut db = vec![0.0; b.elem_count()];
            read(dy, |dy| {
                add_rows(dy, &mut db);
                Ok(())
            })?;
            Some(Tensor::from_vec(db, b.shape(), b.device())?)
        } else {
            None
        };
        Ok((dx, dw, db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::trials;

    #[test]
    fn the_trial_of_its_kernel_is_fair() {
        trials::pass::<_, 2>(Affine, |dtype| [dtype; 2]);
        trials::pass::<_, 3>(Affine, |dtype| [dtype; 3]);
    }
}
