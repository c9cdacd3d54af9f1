//! Gradients of the learning parameters by name: taken from a backward pass, summed over shards, clipped.

use super::adamw::contiguous_mut;
use crate::backbone::Params;
use crate::nn::kernels::{contiguous, fused, lane_sum, read, simd};
use crate::system::workers::Workers;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var};
use std::collections::BTreeMap;

/// One gradient for each learning parameter.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor>);

impl Gradients {
    /// Differentiates a scalar loss. The gradients are detached, so that the graph is freed.
    ///
    /// # Errors
    /// When a learning parameter receives no gradient: some operation cut the graph.
    pub fn of(loss: &Tensor, params: &Params) -> Result<Self> {
        let mut gradients = Self::default();
        gradients.take(&mut loss.backward()?, params);
        gradients.complete(params)?;
        Ok(gradients)
    }

    /// Takes what a backward pass through a part of the network has found.
    pub fn take(&mut self, store: &mut GradStore, params: &Params) {
        let found = |(name, var): (&str, &Var)| Some((name.to_owned(), store.remove(var.as_tensor())?.detach()));
        self.0.extend(params.trained().filter_map(found));
    }

    /// Holds what was taken against the learning parameters.
    ///
    /// # Errors
    /// When a learning parameter received no gradient: some operation cut the graph.
    pub fn complete(&self, params: &Params) -> Result<()> {
        match params.trained().find(|(name, _)| !self.0.contains_key(*name)) {
            Some((name, _)) => candle_core::bail!("the learning parameter {name:?} received no gradient"),
            None => Ok(()),
        }
    }

    /// The gradient of a parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// All gradients by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    /// Adds to the gradient of one parameter, such as that of a penalty.
    ///
    /// # Errors
    /// When there is no gradient of that name, or it has another shape.
    pub fn add_to(&mut self, name: &str, term: &Tensor) -> Result<()> {
        match self.0.get_mut(name) {
            Some(gradient) => *gradient = (&*gradient + term)?,
            None => candle_core::bail!("the parameter {name:?} has no gradient"),
        }
        Ok(())
    }

    /// Adds another shard's or micro-batch's gradients.
    ///
    /// # Errors
    /// When the device fails.
    pub fn add(&mut self, other: Self, workers: &Workers) -> Result<()> {
        if self.0.is_empty() {
            *self = other;
            return Ok(());
        }
        let pairs: Vec<_> = std::mem::take(&mut self.0).into_iter().zip(other.0.into_values()).collect();
        let sums = workers.map(pairs, |((name, sum), term)| {
            if fused(&sum) && sum.is_contiguous() {
                sum.inplace_op2(&term.contiguous()?, &AddAssign)?;
                Ok((name, sum))
            } else {
                Ok((name, (sum + term)?))
            }
        })?;
        self.0 = sums.into_iter().collect();
        Ok(())
    }

    /// The Euclidean norm over all gradients together; not finite when any gradient is not.
    ///
    /// # Errors
    /// When the device fails.
    pub fn norm(&self, workers: &Workers) -> Result<f64> {
        let squares = workers.map(self.0.values().collect(), square_sum)?;
        Ok(squares.into_iter().sum::<f64>().sqrt())
    }

    /// Scales all gradients so that their norm, given as `norm`, is at most `limit` (PyTorch's `clip_grad_norm_`).
    ///
    /// # Errors
    /// When the device fails.
    pub fn clip(&mut self, norm: f64, limit: f64) -> Result<()> {
        let factor = limit / (norm + 1e-6);
        if factor < 1.0 { self.scale(factor) } else { Ok(()) }
    }

    /// Multiplies all gradients.
    ///
    /// # Errors
    /// When the device fails.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for gradient in self.0.values_mut() {
            *gradient = (&*gradient * factor)?;
        }
        Ok(())
    }
}

fn square_sum(gradient: &Tensor) -> Result<f64> {
    if fused(gradient) {
        // Partial sums of a row in f32, rows in f64: accurate and vectorised.
        return read(gradient, |values| {
            Ok(values.chunks(4096).map(|row| f64::from(simd(|| lane_sum([row], |[x]| x * x)))).sum())
        });
    }
    Ok(f64::from(gradient.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()?))
}

struct AddAssign;

impl InplaceOp2 for AddAssign {
    fn name(&self) -> &'static str {
        "add_assign"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let term = contiguous(s2, l2)?;
        let sum = contiguous_mut(s1, l1)?;
        simd(|| sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term));
        Ok(())
    }
}
