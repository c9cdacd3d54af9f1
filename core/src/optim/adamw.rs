//! `AdamW`'s update of parameters (Loshchilov and Hutter 2017), equal to PyTorch's.
//!
//! It is bound by memory, so it is one pass: gradient, moments and weight are read once, moments and weight are written
//! once.

use crate::kernels::{Fusible, contiguous, contiguous_mut, run, simd};
#[cfg(feature = "cuda")]
use crate::kernels::{cuda::optimizer, has_kernel};
use crate::nn::workers::Workers;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use std::cell::RefCell;
#[cfg(feature = "cuda")]
use std::ops::Range;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;
/// The same as kernels take them.
const SHARED: [f32; 3] = [BETA1 as f32, BETA2 as f32, EPS as f32];

/// Updates parameters, each by its rule: weights (…) and moments (2, …), the first and the second, by the contiguous
/// gradient (…). Several at a time on the workers, or all at once on a GPU.
///
/// # Errors
/// When sizes or types disagree, or the device fails.
pub fn update(parameters: Vec<(Rule, [Tensor; 3])>, workers: &Workers) -> Result<()> {
    let updates: Vec<_> =
        parameters.into_iter().map(|(rule, operands)| (Update { rule, trial: false }, operands)).collect();
    #[cfg(feature = "cuda")]
    if updates.first().is_some_and(|(_, [weights, ..])| weights.device().is_cuda())
        && updates.iter().all(|(op, operands)| has_kernel(op, operands.each_ref()))
    {
        let all = updates.iter().map(|(op, operands)| (operands.each_ref(), op.rule.of_parameter()));
        return optimizer::adamw(all, SHARED);
    }
    workers.map(updates, |(op, operands)| run(&op, operands.each_ref()).map(|_| ()))?;
    Ok(())
}

/// m = β₁ m + (1 - β₁) g, v = β₂ v + (1 - β₂) g², w = keep w - rate m / (√v / `root_correction` + eps), where g is the
/// gradient times `factor`.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    factor: f64,
    keep: f64,
    rate: f64,
    root_correction: f64,
}

impl Rule {
    /// The rule of a parameter's step number `step`, counted from 1.
    pub fn new(step: u32, lr: f64, decay: f64, factor: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powi(step as i32);
        let root_correction = correction(BETA2).sqrt();
        Self { factor, keep: 1.0 - lr * decay, rate: lr / correction(BETA1), root_correction }
    }

    /// Applies it to the slices of one parameter.
    fn apply(self, weights: &mut [f32], moments: &mut [f32], gradient: &[f32]) {
        let (first, second) = moments.split_at_mut(gradient.len());
        let ([keep, rate, inverse_root, factor], [beta1, beta2, eps]) = (self.of_parameter(), SHARED);
        let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
        simd!({
            for (((w, m), v), g) in weights.iter_mut().zip(first).zip(second).zip(gradient) {
                let g = factor * g;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *w = keep * *w - rate * *m / (v.sqrt() * inverse_root + eps);
            }
        });
    }

    /// Keep, rate, 1 / `root_correction` and factor: what a kernel takes for each parameter.
    fn of_parameter(self) -> [f32; 4] {
        [self.keep, self.rate, 1.0 / self.root_correction, self.factor].map(|x| x as f32)
    }
}

/// An update as an operation on weights (…), moments (2, …) and gradient (…), which writes the first two.
struct Update {
    rule: Rule,
    /// In a trial the operands are drawn, and all that was written is the outcome.
    trial: bool,
}

impl Update {
    fn prepare(&self, moments: &Tensor) -> Result<()> {
        // Second moments are never negative.
        if self.trial { moments.slice_set(&moments.sqr()?, 0, 0) } else { Ok(()) }
    }

    fn outcome(&self, weights: &Tensor, moments: &Tensor) -> Result<Tensor> {
        if self.trial { Tensor::cat(&[&weights.unsqueeze(0)?, moments], 0) } else { Ok(weights.clone()) }
    }
}

impl Fusible<3> for Update {
    fn kind(&self) -> &'static str {
        "adamw"
    }

    fn kernel(&self, [weights, moments, gradient]: [&Tensor; 3]) -> Result<Tensor> {
        self.prepare(moments)?;
        #[cfg(feature = "cuda")]
        if weights.device().is_cuda() {
            // Only a trial: otherwise all parameters are updated at once, so here too it is more than one.
            let all = [weights.detach().flatten_all()?, moments.detach().flatten_from(1)?, gradient.flatten_all()?];
            let part = |range: Range<usize>| -> Result<[Tensor; 3]> {
                let of = |x: &Tensor, dim| x.narrow(dim, range.start, range.len())?.contiguous();
                Ok([of(&all[0], 0)?, of(&all[1], 1)?, of(&all[2], 0)?])
            };
            let parts = optimizer::trial_parts(gradient.elem_count()).map(part);
            let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
            optimizer::adamw(parts.iter().map(|part| (part.each_ref(), self.rule.of_parameter())), SHARED)?;
            let moved: Vec<&Tensor> = parts.iter().map(|[_, moments, _]| moments).collect();
            moments.slice_set(&Tensor::cat(&moved, 1)?.reshape(moments.shape())?, 0, 0)?;
            return self.outcome(weights, moments);
        }
        moments.inplace_op2(&gradient.contiguous()?, &OnePass { weights, rule: self.rule })?;
        self.outcome(weights, moments)
    }

    fn composed(&self, [weights, moments, gradient]: [&Tensor; 3]) -> Result<Tensor> {
        self.prepare(moments)?;
        let (rule, gradient) = (self.rule, (gradient * self.rule.factor)?);
        let first = ((moments.get(0)? * BETA1)? + (&gradient * (1.0 - BETA1))?)?;
        let second = ((moments.get(1)? * BETA2)? + (gradient.sqr()? * (1.0 - BETA2))?)?;
        let denominator = ((second.sqrt()? / rule.root_correction)? + EPS)?;
        let moved = ((weights * rule.keep)? - (first.div(&denominator)? * rule.rate)?)?;
        moments.slice_set(&Tensor::stack(&[first, second], 0)?, 0, 0)?;
        weights.slice_set(&moved, 0, 0)?;
        self.outcome(weights, moments)
    }

    fn small(&self) -> (Self, [Vec<usize>; 3]) {
        let shape = vec![5, 900];
        (
            Self { rule: Rule::new(3, 0.1, 0.1, 0.5), trial: true },
            [shape.clone(), [vec![2], shape.clone()].concat(), shape],
        )
    }
}

/// The update of one parameter in one pass on the CPU. It opens the moments for writing and, from within, the weights:
/// candle's operations open one tensor each.
struct OnePass<'a> {
    weights: &'a Tensor,
    rule: Rule,
}

/// What is left to open when moments and gradient are.
struct MomentsAndGradient<'a> {
    /// In a cell, since candle lends an operation only shared access to itself.
    moments: RefCell<&'a mut [f32]>,
    gradient: &'a [f32],
    rule: Rule,
}

impl InplaceOp2 for OnePass<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let (moments, gradient) = (RefCell::new(contiguous_mut(s1, l1)?), contiguous(s2, l2)?);
        self.weights.inplace_op1(&MomentsAndGradient { moments, gradient, rule: self.rule })
    }
}

impl InplaceOp1 for MomentsAndGradient<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (weights, mut moments) = (contiguous_mut(storage, layout)?, self.moments.borrow_mut());
        if weights.len() != self.gradient.len() || moments.len() != 2 * self.gradient.len() {
            candle_core::bail!("{} values of a gradient for {} weights", self.gradient.len(), weights.len());
        }
        self.rule.apply(weights, &mut moments, self.gradient);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// What a trial on a GPU relies on: drawn values, also for moments that must not be negative.
    #[test]
    fn the_trial_of_the_kernel_passes_on_the_cpu() {
        let (op, shapes) = Update { rule: Rule::new(1, 0.0, 0.0, 1.0), trial: false }.small();
        let outcome = |run: &dyn Fn([&Tensor; 3]) -> Result<Tensor>| {
            let drawn = shapes.clone().map(|shape| {
                let values = (0..shape.iter().product()).map(|i: usize| (i as f32 * 1.7).sin()).collect::<Vec<_>>();
                Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
            });
            run(drawn.each_ref()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (kernel, composed) = (outcome(&|x| op.kernel(x)), outcome(&|x| op.composed(x)));
        assert_eq!(kernel.len(), 3 * 4500);
        for (kernel, composed) in kernel.iter().zip(&composed) {
            assert!((kernel - composed).abs() < 1e-5, "{kernel} and {composed}");
        }
    }
}
