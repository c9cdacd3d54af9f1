//! Gradients of the trainable parameters by name: added, measured, clipped.

use crate::kernels::{Fusible, contiguous, contiguous_mut, fused, lane_sum, read, simd};
#[cfg(feature = "cuda")]
use crate::kernels::{cuda::optimizer, has_kernel};
use crate::nn::workers::Workers;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Values whose squares are summed in f32; sums of such rows are added up in f64: accurate and vectorised.
const ROW: usize = 4096;

/// One gradient for each trainable parameter: a tensor each, and one factor on all of them.
///
/// The factor is kept apart so that neither clipping nor taking back the loss scale goes over the tensors: the optimiser
/// multiplies by it while it reads them anyway.
#[derive(Debug)]
pub struct Gradients {
    tensors: BTreeMap<String, Tensor>,
    factor: f64,
    /// The sum of squares of each tensor, where an addition has left them.
    squares: Option<Vec<f64>>,
}

/// Sum of the squares of all values.
#[derive(Debug)]
pub enum Squares {
    /// At hand.
    Known(f64),
    /// Partial sums (n) in f32 that lie on a device, to be read together with whatever else the host wants to know.
    Unread(Tensor),
}

impl Gradients {
    /// The gradient of a parameter.
    ///
    /// # Errors
    /// When it received none.
    pub fn get(&self, name: impl Into<String>) -> Result<Tensor> {
        let tensor = self.tensor(&name.into())?;
        if self.factor == 1.0 { Ok(tensor.clone()) } else { tensor * self.factor }
    }

    /// The gradient of a parameter but for the factor.
    ///
    /// # Errors
    /// When it received none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor),
            None => candle_core::bail!("the trainable parameter {name:?} received no gradient"),
        }
    }

    /// What every tensor is to be multiplied by.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// The parameters that have a gradient, in the order of their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Adds to the gradient of one parameter, such as that of a penalty.
    ///
    /// # Errors
    /// When there is no gradient of that name, or it has another shape.
    pub fn add_to(&mut self, name: impl Into<String>, term: &Tensor) -> Result<()> {
        let name = name.into();
        let sum = (self.tensor(&name)? + (term * (1.0 / self.factor))?)?;
        self.tensors.insert(name, sum);
        self.squares = None;
        Ok(())
    }

    /// Gradients by name, each with the sum of its squares where that is known.
    pub fn of_sums(sums: Vec<(String, Tensor, Option<f64>)>) -> Self {
        let squares = sums.iter().map(|(_, _, squares)| *squares).collect();
        Self { tensors: sums.into_iter().map(|(name, sum, _)| (name, sum)).collect(), factor: 1.0, squares }
    }

    /// The sum of the squares of all values but for the factor, parameter by parameter in the order of their names.
    ///
    /// # Errors
    /// When the device fails.
    pub fn squares(&self, workers: &Workers) -> Result<Squares> {
        if let Some(squares) = &self.squares {
            return Ok(Squares::Known(squares.iter().sum()));
        }
        if self.tensors.values().all(fused) {
            return Ok(Squares::Known(workers.map(self.tensors.values().collect(), square_sum)?.into_iter().sum()));
        }
        self.unread_squares().map(Squares::Unread)
    }

    /// The sums of the squares where the gradients are, several partial sums for a large one.
    fn unread_squares(&self) -> Result<Tensor> {
        let tensors = self.tensors.values().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
        #[cfg(feature = "cuda")]
        if tensors.iter().all(|x| has_kernel(&SquareSum, [x])) {
            return optimizer::square_sums(&tensors);
        }
        Tensor::cat(&tensors.iter().map(|x| SquareSum.composed([x])).collect::<Result<Vec<_>>>()?, 0)
    }

    /// The Euclidean norm over all gradients together, from the sum of squares without the factor.
    pub fn norm_of(&self, squares: f64) -> f64 {
        self.factor * squares.sqrt()
    }

    /// The Euclidean norm over all gradients together; not finite when any gradient is not.
    ///
    /// # Errors
    /// When the device fails.
    pub fn norm(&self, workers: &Workers) -> Result<f64> {
        let squares = match self.squares(workers)? {
            Squares::Known(sum) => sum,
            Squares::Unread(parts) => parts.to_vec1::<f32>()?.into_iter().map(f64::from).sum(),
        };
        Ok(self.norm_of(squares))
    }

    /// Scales all gradients so that their norm, given as `norm`, is at most `limit` (PyTorch's `clip_grad_norm_`).
    pub fn clip(&mut self, norm: f64, limit: f64) {
        self.scale((limit / (norm + 1e-6)).min(1.0));
    }

    /// Multiplies all gradients.
    pub fn scale(&mut self, factor: f64) {
        self.factor *= factor;
    }
}

/// sum + term, in place where it can be; then the sum of its squares comes along.
///
/// # Errors
/// When the shapes differ, or the device fails.
pub fn added(sum: Tensor, term: &Tensor) -> Result<(Tensor, Option<f64>)> {
    if !fused(&sum) || !sum.is_contiguous() {
        return Ok(((sum + term)?, None));
    }
    let op = AddAssign::default();
    sum.inplace_op2(&term.contiguous()?, &op)?;
    Ok((sum, Some(op.squares.get())))
}

fn square_sum(gradient: &Tensor) -> Result<f64> {
    read(gradient, |values| Ok(values.chunks(ROW).map(row_squares).sum()))
}

fn row_squares(row: &[f32]) -> f64 {
    f64::from(simd(|| lane_sum([row], |[x]| x * x)))
}

/// The sum of the squares of x: (1), f32.
struct SquareSum;

impl Fusible<1> for SquareSum {
    // On the CPU sums are taken in f64.
    const ON_CPU: bool = false;

    fn kind(&self) -> &'static str {
        "square_sum"
    }

    fn kernel(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            // Only a trial: otherwise it is the squares of all gradients at once.
            let x = x.detach().flatten_all()?;
            let parts = optimizer::trial_parts(x.elem_count()).map(|part| x.narrow(0, part.start, part.len()));
            return optimizer::square_sums(&parts.into_iter().collect::<Result<Vec<_>>>()?)?.sum_keepdim(0);
        }
        self.composed([x])
    }

    fn composed(&self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        x.detach().to_dtype(DType::F32)?.sqr()?.sum_all()?.reshape(1)
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        (Self, [vec![5, 2000]])
    }
}

/// sum = sum + term; the sum of the squares of what results comes along, row by row while it is in cache.
#[derive(Default)]
struct AddAssign {
    squares: Cell<f64>,
}

impl InplaceOp2 for AddAssign {
    fn name(&self) -> &'static str {
        "add_assign"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let term = contiguous(s2, l2)?;
        let sum = contiguous_mut(s1, l1)?;
        let rows = sum.chunks_mut(ROW).zip(term.chunks(ROW));
        let squares = rows.map(|(sum, term)| {
            simd(|| sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term));
            row_squares(sum)
        });
        self.squares.set(squares.sum());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const COUNT: usize = 10_000;

    fn workers() -> Workers {
        Workers::new(2, &Device::Cpu).unwrap()
    }

    /// Two gradients of waves, the second of one value.
    fn gradients(dtype: DType, phase: f64) -> Gradients {
        let wave = |count: usize| {
            let values: Vec<f64> = (0..count).map(|i| (i as f64 + phase).sin()).collect();
            Tensor::from_vec(values, count, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        };
        let tensors = [("a".to_owned(), wave(COUNT)), ("b".to_owned(), wave(1))].into();
        Gradients { tensors, factor: 1.0, squares: None }
    }

    #[test]
    fn sums_of_squares_of_an_addition_are_those_of_a_pass() {
        let sum = |dtype| {
            let pairs = gradients(dtype, 0.0).tensors.into_iter().zip(gradients(dtype, 0.5).tensors.into_values());
            let sums = pairs.map(|((name, sum), term)| {
                let (sum, squares) = added(sum, &term).unwrap();
                (name, sum, squares)
            });
            Gradients::of_sums(sums.collect())
        };
        let composed = sum(DType::F64);
        let mut sum = sum(DType::F32);
        let along = sum.norm(&workers()).unwrap();
        assert!(sum.squares.take().is_some());
        assert_eq!(sum.norm(&workers()).unwrap(), along);
        // As composed, which is what a GPU without kernels does.
        assert!(composed.squares.is_none());
        assert!((composed.norm(&workers()).unwrap() / along - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_factor_counts_everywhere() {
        let mut scaled = gradients(DType::F32, 0.0);
        let (norm, first) = (scaled.norm(&workers()).unwrap(), scaled.get("a").unwrap());
        scaled.scale(0.25);
        assert_eq!(scaled.norm(&workers()).unwrap(), 0.25 * norm);
        let values = |tensor: &Tensor| tensor.to_vec1::<f32>().unwrap();
        assert_eq!(values(&scaled.get("a").unwrap()), values(&(&first * 0.25).unwrap()));
        scaled.add_to("a", &first).unwrap();
        assert_eq!(values(&scaled.get("a").unwrap()), values(&(first * 1.25).unwrap()));
        assert!(scaled.get("c").is_err());
    }
}
