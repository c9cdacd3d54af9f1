//! Low-rank adaptation of frozen linear layers (`LoRA`, Hu et al. 2021):
//! y = x Wᵀ + b + (alpha / rank) · dropout(x) Aᵀ Bᵀ.
//!
//! A layer whose outputs are several projections in turn, such as queries, keys and values, may have factors for each.
//! They share one dropout mask, as in the authors' own code (`MergedLinear` of loralib).

use super::dropout::{Mode, mask};
use super::linear::Linear;
use super::sum::sum;
use crate::kernels::buffer::Buffer;
use crate::kernels::gemm::{Mat, matmul, product};
use crate::kernels::{keep, read_all, simd};
use crate::rng::Purpose;
use candle_core::backprop::GradStore;
use candle_core::{D, Result, Tensor};
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
    /// The factors of each adapted projection, all of one rank, in the order of the outputs.
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

/// Outputs of a layer with the rows of x that give them, the factors of dropout on x, and the gradient of these outputs.
pub type Part<'a> = (Range<usize>, &'a [f32], Option<&'a [f32]>, &'a [f32]);

impl AdaptedLinear {
    /// The layer without its adapter.
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// The product alone and the bias to be added to it; none where something else is added too, or nothing.
    pub fn bias_apart(&self) -> Option<(Linear, Tensor)> {
        if self.adapter.is_some() { None } else { self.linear.bias_apart() }
    }

    /// Adds an adapter, if there is one.
    pub fn adapt(&mut self, adapter: Option<Adapter>) {
        self.adapter = adapter.or(self.adapter.take());
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self) -> bool {
        let factors = self.adapter.iter().flat_map(|adapter| &adapter.factors);
        self.linear.trainable() || factors.into_iter().any(|factors| factors.a.track_op() || factors.b.track_op())
    }

    /// x (B, …, in) to (B, …, out), over a graph.
    ///
    /// # Errors
    /// When the last dimension of `x` is not `in`, or a factor does not fit the layer.
    pub fn forward(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let y = self.linear.forward(x)?;
        let Some(adapter) = &self.adapter else { return Ok(y) };
        let (x, batch) = (x.to_dtype(self.linear.dtype())?, x.dim(0)?);
        adapter.add_to(&y, &x, self.mask((batch, x.elem_count() / batch.max(1)), mode)?)
    }

    /// The adapter's factors of dropout on `values` values of each sample of a batch, if there are any.
    ///
    /// # Errors
    /// When the shard has another number of samples.
    pub fn mask(&self, size: (usize, usize), mode: Mode<'_>) -> Result<Option<Vec<f32>>> {
        let Some(adapter) = &self.adapter else { return Ok(None) };
        mask(size, adapter.dropout, Purpose::LoraDropout, adapter.place, mode)
    }

    /// [`Linear::multiply`] with the adapter; `mask` is what [`AdaptedLinear::mask`] drew for x.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn multiply(
        &self,
        part: Range<usize>,
        x: &[f32],
        mask: Option<&[f32]>,
        at_once: usize,
        beta: f32,
        y: &mut [f32],
    ) -> Result<()> {
        self.linear.multiply(part.clone(), x, at_once, beta, y)?;
        let (inner, out) = (self.linear.inputs()?, part.len());
        self.with_projections(&part, |projections| {
            let rows = at_once.min(x.len() / inner).max(1);
            let mut chunks = x.chunks(rows * inner).zip(y.chunks_mut(rows * out)).enumerate();
            chunks.try_for_each(|(index, (x, y))| {
                let first = index * rows * inner;
                projections.add_to(x, mask.map(|mask| &mask[first..first + x.len()]), y)
            })
        })
    }

    /// `Linear::forward_values` with the adapter.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn forward_values(
        &self,
        part: Range<usize>,
        x: &[f32],
        mask: Option<&[f32]>,
        at_once: usize,
        y: &mut [f32],
    ) -> Result<()> {
        let beta = self.linear.start_from_bias(part.clone(), y)?;
        self.multiply(part, x, mask, at_once, beta, y)
    }

    /// [`Linear::backward_input`] with the adapter.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn backward_input(
        &self,
        part: Range<usize>,
        dy: &[f32],
        mask: Option<&[f32]>,
        beta: f32,
        dx: &mut [f32],
    ) -> Result<()> {
        self.linear.backward_input(part.clone(), dy, beta, dx)?;
        self.with_projections(&part, |projections| projections.add_input_gradient(dy, mask, dx))
    }

    /// [`Linear::backward_weights`] with the adapter, whose projections each lie within one of the parts.
    ///
    /// # Errors
    /// When the slices do not fit the layer.
    pub fn backward_weights(&self, parts: &[Part<'_>], store: &mut GradStore) -> Result<()> {
        let linear: Vec<_> = parts.iter().map(|(_, x, _, dy)| (*x, *dy)).collect();
        self.linear.backward_weights(&linear, store)?;
        parts.iter().try_for_each(|(part, x, mask, dy)| {
            self.with_projections(part, |projections| projections.gradients(x, *mask, dy, store))
        })
    }

    /// Gives the projections within some of the outputs to `f`, if there are any.
    fn with_projections(&self, part: &Range<usize>, f: impl FnOnce(&Projections<'_>) -> Result<()>) -> Result<()> {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        let mut within = Vec::with_capacity(adapter.factors.len());
        for factors in &adapter.factors {
            let outputs = factors.first..factors.first + factors.b.dim(0)?;
            if part.start <= outputs.start && outputs.end <= part.end {
                within.push((factors, outputs.start - part.start..outputs.end - part.start));
            }
        }
        let Some((first, _)) = within.first() else { return Ok(()) };
        let (rank, inner) = first.a.dims2()?;
        let tensors: Vec<&Tensor> = within.iter().flat_map(|(factors, _)| [&factors.a, &factors.b]).collect();
        read_all(&tensors, |values| {
            let mut a = Buffer::new(within.len() * rank * inner);
            for (rows, values) in a.chunks_exact_mut(rank * inner).zip(values.iter().step_by(2)) {
                rows.copy_from_slice(values);
            }
            let b = values.iter().skip(1).step_by(2).copied();
            let factors = within.iter().zip(b).map(|((factors, outputs), b)| (*factors, outputs.clone(), b)).collect();
            f(&Projections { a, factors, rank, inner, out: part.len(), scale: adapter.scale as f32 })
        })
    }
}

impl Adapter {
    /// Adds its part to the layer's output y (B, …, out), as a composition of differentiable operations.
    fn add_to(&self, y: &Tensor, x: &Tensor, kept: Option<Vec<f32>>) -> Result<Tensor> {
        let x = match kept {
            Some(kept) => (x * Tensor::from_vec(kept, x.shape(), x.device())?.to_dtype(x.dtype())?)?,
            None => x.clone(),
        };
        // The factors of all projections as one pair: A below each other, each B in columns and rows of its own.
        let out = y.dim(D::Minus1)?;
        let placed = |factors: &Factors| {
            let behind = out - factors.first - factors.b.dim(0)?;
            factors.b.pad_with_zeros(0, factors.first, behind)
        };
        let a: Vec<&Tensor> = self.factors.iter().map(|factors| &factors.a).collect();
        let b = self.factors.iter().map(placed).collect::<Result<Vec<_>>>()?;
        let inner = Linear::new(Tensor::cat(&a, 0)?, None).forward(&x)?; // (B, …, projections · rank)
        let added = Linear::new((Tensor::cat(&b, 1)? * self.scale)?, None).forward(&inner)?;
        sum(y, &added)
    }
}

/// The adapted projections within some outputs of a layer, on slices.
struct Projections<'a> {
    /// A of each, one below the other (hidden, in).
    a: Buffer,
    /// The tensors of each, which of the outputs it adds to, and its B (outputs, rank).
    factors: Vec<(&'a Factors, Range<usize>, &'a [f32])>,
    rank: usize,
    inner: usize,
    /// Number of outputs, those of the layer between included.
    out: usize,
    scale: f32,
}

impl Projections<'_> {
    /// Width of the inner values of all projections together.
    fn hidden(&self) -> usize {
        self.factors.len() * self.rank
    }

    fn a(&self) -> Mat<'_> {
        Mat::new(&self.a, self.hidden(), self.inner)
    }

    /// One projection's columns of (rows, hidden).
    fn column<'v>(&self, values: &'v [f32], index: usize) -> Mat<'v> {
        Mat::strided(&values[index * self.rank..], values.len() / self.hidden(), self.rank, self.hidden())
    }

    /// One projection's columns of (rows, out).
    fn outputs<'v>(&self, values: &'v [f32], outputs: &Range<usize>) -> Mat<'v> {
        Mat::strided(&values[outputs.start..], values.len() / self.out, outputs.len(), self.out)
    }

    /// h = dropout(x) Aᵀ, (rows, hidden).
    fn inner_values(&self, x: &[f32]) -> Result<Buffer> {
        let rows = x.len() / self.inner;
        let mut h = Buffer::new(rows * self.hidden());
        matmul(Mat::new(x, rows, self.inner), self.a().t(), 1.0, 0.0, &mut h, self.hidden())?;
        Ok(h)
    }

    /// g = scale · dy B, (rows, hidden).
    fn inner_gradients(&self, dy: &[f32]) -> Result<Buffer> {
        let mut g = Buffer::new(dy.len() / self.out * self.hidden());
        for (index, (_, outputs, b)) in self.factors.iter().enumerate() {
            let b = Mat::new(b, outputs.len(), self.rank);
            matmul(self.outputs(dy, outputs), b, self.scale, 0.0, &mut g[index * self.rank..], self.hidden())?;
        }
        Ok(g)
    }

    /// y += scale · dropout(x) Aᵀ Bᵀ.
    fn add_to(&self, x: &[f32], mask: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
        let h = self.inner_values(&dropped(x, mask))?;
        for (index, (_, outputs, b)) in self.factors.iter().enumerate() {
            let b = Mat::new(b, outputs.len(), self.rank);
            matmul(self.column(&h, index), b.t(), self.scale, 1.0, &mut y[outputs.start..], self.out)?;
        }
        Ok(())
    }

    /// dx += dropout(g A).
    fn add_input_gradient(&self, dy: &[f32], mask: Option<&[f32]>, dx: &mut [f32]) -> Result<()> {
        let g = self.inner_gradients(dy)?;
        let g = Mat::new(&g, dy.len() / self.out, self.hidden());
        let Some(mask) = mask else { return matmul(g, self.a(), 1.0, 1.0, dx, self.inner) };
        let mut through = Buffer::new(dx.len());
        matmul(g, self.a(), 1.0, 0.0, &mut through, self.inner)?;
        simd(|| dx.iter_mut().zip(&*through).zip(mask).for_each(|((dx, through), factor)| *dx += through * factor));
        Ok(())
    }

    /// Leaves dA = gᵀ dropout(x) and dB = scale · dyᵀ h in `store` where they are trained.
    fn gradients(&self, x: &[f32], mask: Option<&[f32]>, dy: &[f32], store: &mut GradStore) -> Result<()> {
        let x = &*dropped(x, mask);
        let (h, g) = (self.inner_values(x)?, self.inner_gradients(dy)?);
        let x = Mat::new(x, x.len() / self.inner, self.inner);
        for (index, (factors, outputs, _)) in self.factors.iter().enumerate() {
            keep(store, &factors.a, || product(self.column(&g, index).t(), x, 1.0))?;
            keep(store, &factors.b, || product(self.outputs(dy, outputs).t(), self.column(&h, index), self.scale))?;
        }
        Ok(())
    }
}

/// What A sees of x.
fn dropped<'x>(x: &'x [f32], mask: Option<&[f32]>) -> Cow<'x, [f32]> {
    let Some(mask) = mask else { return x.into() };
    let mut dropped = x.to_vec();
    simd(|| dropped.iter_mut().zip(mask).for_each(|(value, factor)| *value *= factor));
    dropped.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::MaskKeys;
    use candle_core::{DType, Device, Var};

    fn values(shape: &[usize], seed: f64, dtype: DType) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i| ((i as f64 + seed) * 12.9898).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn flat(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// A layer of 4 inputs and 9 outputs with adapters of rank 2 on outputs 0 to 2 and 6 to 8, and x with the factors.
    fn layer(dtype: DType, dropout: f64) -> (AdaptedLinear, Vec<Var>) {
        let shapes: [&[usize]; 5] = [&[2, 3, 4], &[2, 4], &[3, 2], &[2, 4], &[3, 2]];
        let var = |(index, shape): (usize, &&[usize])| values(shape, 0.1 * (index + 1) as f64, dtype);
        let vars: Vec<Var> = shapes.iter().enumerate().map(|it| Var::from_tensor(&var(it)).unwrap()).collect();
        let linear = Linear::new(values(&[9, 4], 0.6, dtype), Some(values(&[9], 0.7, dtype)));
        let mut layer = AdaptedLinear::from(linear);
        let factors = |a: &Var, b: &Var, first| Factors { a: a.as_tensor().clone(), b: b.as_tensor().clone(), first };
        let factors = vec![factors(&vars[1], &vars[2], 0), factors(&vars[3], &vars[4], 6)];
        layer.adapt(Some(Adapter { factors, scale: 1.5, dropout, place: 3 }));
        (layer, vars)
    }

    #[test]
    fn values_are_those_of_the_graph() {
        let noise = MaskKeys { seed: 1, step: 2, samples: vec![7, 9] };
        let mode = Mode::Train(&noise);
        let mut outputs = Vec::new();
        for dropout in [0.0, 0.4] {
            let (graph, vars) = layer(DType::F64, dropout);
            let y = graph.forward(&vars[0], mode).unwrap();
            let dy = values(&[2, 3, 9], 0.8, DType::F64);
            let gradients = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
            let expected: Vec<_> =
                std::iter::once(flat(&y)).chain(vars.iter().map(|var| flat(gradients.get(var).unwrap()))).collect();

            let (layer, vars) = layer(DType::F32, dropout);
            let single = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let (x, dy) = (single(&flat(&vars[0])), single(&flat(&dy)));
            let mask = layer.mask((2, 12), mode).unwrap();
            // All rows in one product, and row by row.
            for at_once in [6, 1] {
                let (mut y, mut dx) = (vec![0.0; 6 * 9], vec![0.0; x.len()]);
                layer.forward_values(0..9, &x, mask.as_deref(), at_once, &mut y).unwrap();
                layer.backward_input(0..9, &dy, mask.as_deref(), 0.0, &mut dx).unwrap();
                let mut store = GradStore::default();
                layer.backward_weights(&[(0..9, &x, mask.as_deref(), &dy)], &mut store).unwrap();
                let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let of_factors = vars[1..].iter().map(|var| flat(store.get(var).unwrap()));
                let found: Vec<_> = [wide(&y), wide(&dx)].into_iter().chain(of_factors).collect();
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
                }
            }
            outputs.push(expected[0].clone());
        }
        assert_ne!(outputs[0], outputs[1]);
    }

    #[test]
    fn without_gradients_of_the_input_only_the_factors_get_one() {
        let (layer, vars) = layer(DType::F32, 0.0);
        let x = vars[0].as_detached_tensor();
        let gradients = layer.forward(&x, Mode::Eval).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(vars[1..].iter().all(|var| gradients.get(var).is_some()));
        assert!(gradients.get(&x).is_none() && layer.trainable());
    }
}
