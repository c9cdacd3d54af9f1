//! Low-rank adaptation of frozen linear layers (`LoRA`, Hu et al. 2021):
//! y = x Wᵀ + b + (alpha / rank) · dropout(x) Aᵀ Bᵀ.
//!
//! A layer whose outputs are several projections in turn, such as queries, keys and values, may have factors for each.
//! They share one dropout mask, as in the authors' own code (`MergedLinear` of loralib).

use super::dropout::{Mode, mask};
use super::linear::Linear;
use crate::kernels::gemm::{Mat, matmul};
use crate::kernels::{contiguous, fused, gradient_of, read, simd};
use crate::rng::Purpose;
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// The two factors of one projection.
#[derive(Debug, Clone)]
pub struct Factors {
    /// A, (rank, in).
    pub a: Tensor,
    /// B, (outputs, rank).
    pub b: Tensor,
    /// The layer's output that B's first row adds to.
    pub first: usize,
}

/// What is added to a frozen layer.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Of each adapted projection, all of one rank, in the order of the outputs.
    pub factors: Vec<Factors>,
    /// alpha / rank.
    pub scale: f64,
    /// Dropout rate of the adapter's inputs.
    pub dropout: f64,
    /// Tells the random masks of layers apart.
    pub place: u64,
}

/// A linear layer that may have an adapter; with one, its own weight and bias are frozen.
#[derive(Debug, Clone)]
pub struct AdaptedLinear {
    linear: Linear,
    adapter: Option<Adapter>,
}

impl From<Linear> for AdaptedLinear {
    fn from(linear: Linear) -> Self {
        Self { linear, adapter: None }
    }
}

impl AdaptedLinear {
    /// The layer itself, when it has no adapter.
    pub fn plain(&self) -> Option<&Linear> {
        self.adapter.is_none().then_some(&self.linear)
    }

    /// Adds an adapter, if there is one.
    pub fn adapt(&mut self, adapter: Option<Adapter>) {
        self.adapter = adapter.or(self.adapter.take());
    }

    /// x (B, …, in) to (B, …, out).
    ///
    /// # Errors
    /// When the last dimension of `x` is not `in`, or a factor does not fit the layer.
    pub fn forward(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let Some(adapter) = &self.adapter else { return self.linear.forward(x) };
        let x = &x.to_dtype(self.linear.dtype())?;
        let kept = mask(x, adapter.dropout, Purpose::LoraDropout, adapter.place, mode)?;
        if !fused(x) {
            return adapter.add_to(&self.linear.forward(x)?, x, kept);
        }
        let factors = &adapter.factors;
        let (a, b) = (stack(factors.iter().map(|f| &f.a))?, stack(factors.iter().map(|f| &f.b))?);
        let op = AdaptedAffine {
            linear: self.linear.clone(),
            slices: adapter.slices()?,
            rank: a.dim(0)? / factors.len(),
            scale: adapter.scale as f32,
            kept,
        };
        x.contiguous()?.apply_op3(&a, &b, op)
    }
}

/// Matrices as one, the first on top.
fn stack<'t>(matrices: impl Iterator<Item = &'t Tensor>) -> Result<Tensor> {
    match matrices.collect::<Vec<_>>().as_slice() {
        [one] => Ok((*one).clone()),
        several => Tensor::cat(several, 0),
    }
}

impl Adapter {
    /// The outputs that each projection adds to.
    fn slices(&self) -> Result<Vec<Range<usize>>> {
        self.factors.iter().map(|factors| Ok(factors.first..factors.first + factors.b.dim(0)?)).collect()
    }

    /// Adds its part to the layer's output y (B, …, out), as a composition of differentiable operations.
    fn add_to(&self, y: &Tensor, x: &Tensor, kept: Option<Vec<f32>>) -> Result<Tensor> {
        let x = match kept {
            Some(kept) => (x * Tensor::from_vec(kept, x.shape(), x.device())?.to_dtype(x.dtype())?)?,
            None => x.clone(),
        };
        let (inner, out) = (x.dim(D::Minus1)?, y.dim(D::Minus1)?);
        let x = x.reshape(((), inner))?;
        let mut sum = y.reshape(((), out))?;
        for (factors, slice) in self.factors.iter().zip(self.slices()?) {
            let part = (x.matmul(&factors.a.t()?)?.matmul(&factors.b.t()?)? * self.scale)?; // (rows, outputs)
            sum = (sum + part.pad_with_zeros(1, slice.start, out - slice.end)?)?;
        }
        sum.reshape(y.shape())
    }
}

/// The layer and its adapter in one operation of x, A and B. The layer's own parameters are no operands: they get no
/// gradient, and the two paths back to x add up in one buffer.
struct AdaptedAffine {
    linear: Linear,
    /// The outputs of each projection, as many of B's rows.
    slices: Vec<Range<usize>>,
    rank: usize,
    scale: f32,
    /// Factors of x's values on the way to A; none without dropout.
    kept: Option<Vec<f32>>,
}

impl AdaptedAffine {
    /// What A sees of x.
    fn dropped<'x>(&self, x: &'x [f32]) -> Cow<'x, [f32]> {
        let Some(kept) = &self.kept else { return x.into() };
        let mut dropped = x.to_vec();
        multiply(&mut dropped, kept);
        dropped.into()
    }

    /// Width of all projections' hidden values together.
    fn hidden(&self) -> usize {
        self.slices.len() * self.rank
    }

    /// Each projection's index, its outputs, and its rows of B (outputs, rank).
    fn projections<'b>(&self, b: &'b [f32]) -> impl Iterator<Item = (usize, Range<usize>, &'b [f32])> {
        let mut rest = b;
        self.slices.iter().cloned().enumerate().map(move |(index, slice)| {
            let (rows, others) = rest.split_at(slice.len() * self.rank);
            rest = others;
            (index, slice, rows)
        })
    }

    fn forward(&self, x: &[f32], rows: usize, a: &[f32], b: &[f32], y: &mut [f32], out: usize) -> Result<()> {
        let (inner, hidden, rank) = (x.len() / rows.max(1), self.hidden(), self.rank);
        let mut h = vec![0.0; rows * hidden];
        matmul(Mat::new(&self.dropped(x), rows, inner), Mat::new(a, hidden, inner).t(), 1.0, 0.0, &mut h, hidden)?;
        for (index, slice, b) in self.projections(b) {
            let h = Mat::strided(&h[index * rank..], rows, rank, hidden);
            matmul(h, Mat::new(b, slice.len(), rank).t(), self.scale, 1.0, &mut y[slice.start..], out)?;
        }
        Ok(())
    }

    /// With h = x Aᵀ and g = s dy B: dB = s dyᵀ h, dA = gᵀ x, and g A is added to `dx`, if it is wanted. Gives dA and dB.
    fn backward(
        &self,
        x: &[f32],
        (a, b): (&[f32], &[f32]),
        (dy, out): (&[f32], usize),
        dx: Option<&mut [f32]>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let rows = dy.len() / out.max(1);
        let (inner, hidden, rank) = (x.len() / rows.max(1), self.hidden(), self.rank);
        let x = self.dropped(x);
        let x = Mat::new(&x, rows, inner);
        let (mut h, mut g) = (vec![0.0; rows * hidden], vec![0.0; rows * hidden]);
        matmul(x, Mat::new(a, hidden, inner).t(), 1.0, 0.0, &mut h, hidden)?;
        let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; b.len()]);
        let mut first = 0;
        for (index, slice, b) in self.projections(b) {
            let dy = Mat::strided(&dy[slice.start..], rows, slice.len(), out);
            matmul(dy, Mat::new(b, slice.len(), rank), self.scale, 0.0, &mut g[index * rank..], hidden)?;
            let h = Mat::strided(&h[index * rank..], rows, rank, hidden);
            matmul(dy.t(), h, self.scale, 0.0, &mut db[first..], rank)?;
            first += b.len();
        }
        let g = Mat::new(&g, rows, hidden);
        matmul(g.t(), x, 1.0, 0.0, &mut da, inner)?;
        if let Some(dx) = dx {
            self.add_input_gradient(g, Mat::new(a, hidden, inner), inner, dx)?;
        }
        Ok((da, db))
    }

    fn add_input_gradient(&self, g: Mat<'_>, a: Mat<'_>, inner: usize, dx: &mut [f32]) -> Result<()> {
        let Some(kept) = &self.kept else { return matmul(g, a, 1.0, 1.0, dx, inner) };
        let mut through = vec![0.0; dx.len()];
        matmul(g, a, 1.0, 0.0, &mut through, inner)?;
        multiply(&mut through, kept);
        simd(|| dx.iter_mut().zip(&through).for_each(|(dx, through)| *dx += through));
        Ok(())
    }
}

fn multiply(values: &mut [f32], factors: &[f32]) {
    simd(|| values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor));
}

impl CustomOp3 for AdaptedAffine {
    fn name(&self) -> &'static str {
        "adapted_linear"
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
        let (x, a, b) = (contiguous(s1, l1)?, contiguous(s2, l2)?, contiguous(s3, l3)?);
        let (mut y, shape) = self.linear.values(x, l1.shape())?;
        let out = self.linear.outputs()?;
        self.forward(x, y.len() / out, a, b, &mut y, out)?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let out = self.linear.outputs()?;
        let mut dx = self.linear.input_gradient(x, dy)?;
        let (da, db) = read(x, |x| {
            read(a, |a| read(b, |b| read(dy, |dy| self.backward(x, (a, b), (dy, out), dx.as_deref_mut()))))
        })?;
        let dx = dx.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
        Ok((dx, gradient_of(a, da)?, gradient_of(b, db)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Noise;
    use candle_core::{DType, Device, Var};

    fn values(shape: &[usize], seed: f64, dtype: DType) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i| ((i as f64 + seed) * 12.9898).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    /// A layer of 4 inputs and 9 outputs with adapters of rank 2 on outputs 0 to 2 and 6 to 8: output, then the
    /// gradients of x, A, B of the first and of the last projection.
    fn run(dtype: DType, dropout: f64) -> Vec<Vec<f64>> {
        let var = |shape: &[usize], seed| Var::from_tensor(&values(shape, seed, dtype)).unwrap();
        let (x, a1, b1) = (var(&[2, 3, 4], 0.1), var(&[2, 4], 0.2), var(&[3, 2], 0.3));
        let (a2, b2) = (var(&[2, 4], 0.4), var(&[3, 2], 0.5));
        let linear = Linear::new(values(&[9, 4], 0.6, dtype), Some(values(&[9], 0.7, dtype)));
        let mut layer = AdaptedLinear::from(linear);
        let factors = |a: &Var, b: &Var, first| Factors { a: a.as_tensor().clone(), b: b.as_tensor().clone(), first };
        let factors = vec![factors(&a1, &b1, 0), factors(&a2, &b2, 6)];
        layer.adapt(Some(Adapter { factors, scale: 1.5, dropout, place: 3 }));
        let noise = Noise { seed: 1, step: 2, samples: vec![7, 9] };
        let y = layer.forward(&x, Mode::Train(&noise)).unwrap();
        let loss = (&y * values(&[2, 3, 9], 0.8, dtype)).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        std::iter::once(flat(&y)).chain([&x, &a1, &b1, &a2, &b2].map(|v| flat(gradients.get(v).unwrap()))).collect()
    }

    #[test]
    fn the_kernel_is_the_composition() {
        for dropout in [0.0, 0.4] {
            for (fused, composed) in run(DType::F32, dropout).iter().zip(run(DType::F64, dropout)) {
                for (fused, composed) in fused.iter().zip(composed) {
                    assert!((fused - composed).abs() < 1e-5, "{fused} instead of {composed}");
                }
            }
        }
        assert_ne!(run(DType::F32, 0.0)[0], run(DType::F32, 0.4)[0]);
    }

    #[test]
    fn without_gradients_of_the_input_only_the_factors_get_one() {
        let (a, b) =
            (Var::ones((1, 2), DType::F32, &Device::Cpu).unwrap(), Var::ones((3, 1), DType::F32, &Device::Cpu));
        let mut layer = AdaptedLinear::from(Linear::new(values(&[3, 2], 0.1, DType::F32), None));
        let factors = vec![Factors { a: a.as_tensor().clone(), b: b.unwrap().as_tensor().clone(), first: 0 }];
        layer.adapt(Some(Adapter { factors, scale: 1.0, dropout: 0.0, place: 0 }));
        let x = values(&[1, 2], 0.2, DType::F32);
        let gradients = layer.forward(&x, Mode::Eval).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&a).is_some() && gradients.get(&x).is_none());
    }
}
