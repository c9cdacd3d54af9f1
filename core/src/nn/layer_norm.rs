//! Layer normalisation (Ba, Kiros and Hinton 2016), and without its mean (RMS norm, Zhang and Sennrich 2019).

#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::{Operation, keep, lane_sum, read, read_all, run, simd, widened};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Result, Shape, Tensor, bail};

/// Normalises the last dimension, then scales and shifts it: weight (d), bias (d). Without a bias it is the RMS norm, which
/// subtracts no mean either.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f32,
}

impl LayerNorm {
    /// A layer over existing tensors; `eps` is added to the variance.
    pub fn new(weight: Tensor, bias: Tensor, eps: f32) -> Self {
        Self { weight, bias: Some(bias), eps }
    }

    /// An RMS norm over an existing tensor; `eps` is added to the mean square.
    pub fn rms(weight: Tensor, eps: f32) -> Self {
        Self { weight, bias: None, eps }
    }

    fn op(&self) -> Normalize {
        Normalize { eps: self.eps, output: self.weight.dtype() }
    }

    /// x (…, d) to (…, d), in the type of the weight: statistics of half-precision values would lose their digits.
    ///
    /// # Errors
    /// When the last dimension of `x` is not d.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = &x.to_dtype(self.weight.dtype())?;
        match &self.bias {
            Some(bias) => run(&self.op(), [x, &self.weight, bias]),
            None => run(&self.op(), [x, &self.weight]),
        }
    }

    /// The same, rounded to `dtype`, which a GPU's kernel does itself.
    ///
    /// # Errors
    /// As of [`LayerNorm::forward`].
    pub fn forward_as(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        match &self.bias {
            Some(bias) if x.device().is_cuda() => {
                let op = Normalize { output: dtype, ..self.op() };
                run(&op, [&x.to_dtype(self.weight.dtype())?, &self.weight, bias])
            }
            _ => self.forward(x)?.to_dtype(dtype),
        }
    }

    /// [`LayerNorm::forward`] where there is a layer, x itself where there is none.
    ///
    /// # Errors
    /// As of [`LayerNorm::forward`].
    pub fn forward_if(layer: Option<&Self>, x: Tensor) -> Result<Tensor> {
        match layer {
            Some(layer) => layer.forward(&x),
            None => Ok(x),
        }
    }

    /// The rows of x, normalised, to y.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn forward_values(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        match &self.bias {
            Some(bias) => read_all(&[&self.weight, bias], |values| match values {
                [w, b] => self.op().forward([x, w, b], y),
                _ => Ok(()),
            }),
            None => read(&self.weight, |w| self.op().forward([x, w], y)),
        }
    }

    /// Adds the gradient with respect to x to `dx`, and leaves those of trainable parameters in `store`.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn backward_values(&self, x: &[f32], dy: &[f32], dx: &mut [f32], store: &mut GradStore) -> Result<()> {
        let d = self.weight.elem_count();
        let mut dw = vec![0.0; d];
        let mut db = self.bias.as_ref().map(|_| vec![0.0; d]);
        read(&self.weight, |w| {
            self.op().add_gradients(x, w, dy, dx, &mut dw, db.as_deref_mut());
            Ok(())
        })?;
        keep(store, &self.weight, || Ok(dw))?;
        match (&self.bias, db) {
            (Some(bias), Some(db)) => keep(store, bias, || Ok(db)),
            _ => Ok(()),
        }
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self) -> bool {
        self.weight.track_op() || self.bias.as_ref().is_some_and(Tensor::track_op)
    }
}

/// The norm as an operation of x, the weight, and the bias if there is one.
#[derive(Clone, Copy)]
pub(super) struct Normalize {
    pub eps: f32,
    /// The type of the result: that of the operands, or on a GPU a shorter one.
    pub output: DType,
}

impl Operation<3> for Normalize {
    fn name(&self) -> &'static str {
        match self.output {
            DType::F16 => "layer_norm to f16",
            DType::BF16 => "layer_norm to bf16",
            _ => "layer_norm",
        }
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
        simd!({
            for (row, out) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
                let (mean, rstd) = self.moments(row, true);
                for (((y, x), w), b) in out.iter_mut().zip(row).zip(w).zip(b) {
                    *y = (x - mean) * rstd * w + b;
                }
            }
        });
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
        self.add_gradients(x, w, dy, &mut dx, &mut dw, Some(&mut db));
        Ok([Some(dx), Some(dw), Some(db)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [x, weight, bias]: [cuda::Operand<'_>; 3]) -> Result<CudaStorage> {
        cuda::layer_norm::forward(x, weight, bias, self.eps, self.output)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward_with(
        &self,
        operands: [&Tensor; 3],
        _y: &Tensor,
        dy: &Tensor,
        _saved: Option<&Tensor>,
        before: Option<&Tensor>,
    ) -> Result<[Option<Tensor>; 3]> {
        cuda::layer_norm::backward(operands, dy, before, self.eps)
    }

    fn composed(&self, [x, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        // Of a trial in f64 nothing is rounded.
        let output = if x.dtype() == DType::F64 { DType::F64 } else { self.output };
        let [x, weight, bias] = [widened(x)?, widened(weight)?, widened(bias)?];
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normalized = centred.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?;
        normalized.broadcast_mul(&weight)?.broadcast_add(&bias)?.to_dtype(output)
    }

    fn small(&self) -> (Self, [Vec<usize>; 3]) {
        (*self, [vec![3, 30, 40], vec![40], vec![40]])
    }
}

/// The RMS norm.
impl Operation<2> for Normalize {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn shape(&self, [x, weight]: [&Shape; 2]) -> Result<Shape> {
        Operation::<3>::shape(self, [x, weight, weight])
    }

    fn forward(&self, [x, w]: [&[f32]; 2], y: &mut [f32]) -> Result<()> {
        let d = w.len();
        simd!({
            for (row, out) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
                let (_, rstd) = self.moments(row, false);
                for ((y, x), w) in out.iter_mut().zip(row).zip(w) {
                    *y = x * rstd * w;
                }
            }
        });
        Ok(())
    }

    fn backward(
        &self,
        [x, w]: [&[f32]; 2],
        _y: &[f32],
        dy: &[f32],
        _wanted: [bool; 2],
    ) -> Result<[Option<Vec<f32>>; 2]> {
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        self.add_gradients(x, w, dy, &mut dx, &mut dw, None);
        Ok([Some(dx), Some(dw)])
    }

    fn on_gpu(&self) -> bool {
        false
    }

    fn composed(&self, [x, weight]: [&Tensor; 2]) -> Result<Tensor> {
        let square = x.sqr()?.mean_keepdim(D::Minus1)?;
        x.broadcast_div(&(square + f64::from(self.eps))?.sqrt()?)?.broadcast_mul(weight)
    }

    fn small(&self) -> (Self, [Vec<usize>; 2]) {
        (*self, [vec![3, 30, 40], vec![40]])
    }
}

impl Normalize {
    /// Mean and reciprocal standard deviation of a row, in two passes: the one-pass variance cancels. A row that is not
    /// `centred` counts as one of mean 0.
    #[inline(always)]
    fn moments(self, row: &[f32], centred: bool) -> (f32, f32) {
        let n = row.len() as f32;
        let mean = if centred { lane_sum([row], |[x]| x) / n } else { 0.0 };
        let variance = lane_sum([row], |[x]| (x - mean) * (x - mean)) / n;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }

    /// With x̂ = (x - mean) rstd and g = dy * w: dx += rstd (g - mean(g) - x̂ mean(g x̂)), dw += Σ dy x̂, db += Σ dy. Without
    /// a bias, whose norm subtracts no mean, both means of x and of g are 0.
    fn add_gradients(
        self,
        x: &[f32],
        w: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dw: &mut [f32],
        mut db: Option<&mut [f32]>,
    ) {
        let (d, centred) = (w.len(), db.is_some());
        simd!({
            for ((row, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
                let (mean, rstd) = self.moments(row, centred);
                let mean_g = if centred { lane_sum([dy, w], |[dy, w]| dy * w) / d as f32 } else { 0.0 };
                let mean_gx = lane_sum([dy, w, row], |[dy, w, x]| dy * w * (x - mean) * rstd) / d as f32;
                for ((((dx, x), dy), w), dw) in dx.iter_mut().zip(row).zip(dy).zip(w).zip(dw.iter_mut()) {
                    let normalized = (x - mean) * rstd;
                    *dx += rstd * (dy * w - mean_g - normalized * mean_gx);
                    *dw += dy * normalized;
                }
                if let Some(db) = &mut db {
                    for (db, dy) in db.iter_mut().zip(dy) {
                        *db += dy;
                    }
                }
            }
        });
    }
}
