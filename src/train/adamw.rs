//! AdamW (Loshchilov and Hutter 2017) with treatments per parameter and savable state, equal to PyTorch's.
//!
//! An update is bound by memory, so it is one pass: gradient, moments and weight are read once, moments and weight are
//! written once.

use super::gradients::Gradients;
use crate::backbone::{Params, check_finite};
use crate::kernels::{Fusible, contiguous, contiguous_mut, run, simd};
#[cfg(feature = "cuda")]
use crate::kernels::{cuda::optimizer, has_kernel};
use crate::nn::workers::Workers;
use crate::strategy::Plan;
use candle_core::{CpuStorage, DType, Device, Error, InplaceOp1, InplaceOp2, Layout, Result, Shape, Tensor, Var};
use std::cell::RefCell;
use std::collections::BTreeMap;
#[cfg(feature = "cuda")]
use std::ops::Range;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;
/// The same as kernels take them.
const SHARED: [f32; 3] = [BETA1 as f32, BETA2 as f32, EPS as f32];

/// The rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Learning rate of the backbone, before layer decay.
    pub lr: f64,
    /// Learning rate of the head.
    pub head_lr: f64,
    /// Decoupled weight decay, scaled by the learning rate as in PyTorch.
    pub weight_decay: f64,
}

/// First and second moments of one parameter, and its steps so far: one that is unfrozen late starts from none, as in PyTorch.
#[derive(Debug)]
struct Moments {
    /// The first moments (0, …) and the second (1, …): one tensor, since an in-place operation opens one for writing.
    both: Tensor,
    steps: u32,
}

impl Moments {
    fn new(first: &Tensor, second: &Tensor, steps: u32) -> Result<Self> {
        Ok(Self { both: Tensor::stack(&[first, second], 0)?, steps })
    }

    fn first(&self) -> Result<Tensor> {
        self.both.get(0)
    }

    fn second(&self) -> Result<Tensor> {
        self.both.get(1)
    }
}

/// The optimiser: the state of the trainable parameters.
#[derive(Debug)]
pub struct AdamW {
    plan: Plan,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// An optimiser that has not yet taken a step.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(plan: Plan, params: &Params) -> Result<Self> {
        let zeros = |(name, var): (&str, &Var)| {
            let zeros = var.as_detached_tensor().zeros_like()?;
            Ok((name.to_owned(), Moments::new(&zeros, &zeros, 0)?))
        };
        Ok(Self { plan, moments: params.trained().map(zeros).collect::<Result<_>>()? })
    }

    /// Updates every trainable parameter of `params` by its gradient, several parameters at a time on the workers, or all
    /// at once on a GPU. Those that are not trainable in it are left as they are.
    ///
    /// # Errors
    /// When a trainable parameter has no gradient.
    pub fn step(&mut self, params: &Params, gradients: &Gradients, rates: Rates, workers: &Workers) -> Result<()> {
        let trained: Vec<(&str, &Var)> = params.trained().collect();
        for (name, _) in &trained {
            if let Some(moments) = self.moments.get_mut(*name) {
                moments.steps += 1;
            }
        }
        let update = |(name, var): (&str, &Var)| match (self.moments.get(name), self.plan.get(name)) {
            (Some(moments), Some(treatment)) => {
                let lr = if treatment.head { rates.head_lr } else { rates.lr } * treatment.lr_scale;
                let decay = if treatment.decay { rates.weight_decay } else { 0.0 };
                let rule = Rule::new(moments.steps, lr, decay, gradients.factor());
                let operands = [var.as_detached_tensor(), moments.both.clone(), gradients.tensor(name)?.contiguous()?];
                Ok((Update { rule, trial: false }, operands))
            }
            _ => candle_core::bail!("the optimiser does not know the trainable parameter {name:?}"),
        };
        let updates = trained.into_iter().map(update).collect::<Result<Vec<_>>>()?;
        #[cfg(feature = "cuda")]
        if updates.first().is_some_and(|(_, [weights, ..])| weights.device().is_cuda())
            && updates.iter().all(|(op, operands)| has_kernel(op, operands.each_ref()))
        {
            return optimizer::adamw(
                updates.iter().map(|(op, operands)| (operands.each_ref(), op.rule.of_parameter())),
                SHARED,
            );
        }
        workers.map(updates, |(op, operands)| run(&op, operands.each_ref()).map(|_| ()))?;
        Ok(())
    }

    /// The state as named tensors: `first.NAME`, `second.NAME`, `steps.NAME`.
    ///
    /// # Errors
    /// When the host is out of memory.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, moments) in &self.moments {
            tensors.insert(format!("first.{name}"), moments.first()?);
            tensors.insert(format!("second.{name}"), moments.second()?);
            tensors.insert(format!("steps.{name}"), Tensor::new(moments.steps, &Device::Cpu)?);
        }
        Ok(tensors)
    }

    /// Continues from saved state, after `updates` updates.
    ///
    /// # Errors
    /// When something of a parameter is missing, a moment has another shape than it, or holds what no update leaves.
    pub fn restore(&mut self, mut tensors: BTreeMap<String, Tensor>, updates: usize) -> Result<()> {
        for (name, moments) in &mut self.moments {
            let (shape, device, dtype) =
                (moments.first()?.shape().clone(), moments.both.device().clone(), moments.both.dtype());
            let mut saved = |kind: &str, shape: &Shape, dtype| take(&mut tensors, kind, name, (shape, dtype));
            let (first, second) = (saved("first", &shape, dtype)?, saved("second", &shape, dtype)?);
            let steps = saved("steps", &Shape::from(()), DType::U32)?.to_scalar()?;
            check_finite(&format!("first.{name}"), &first).map_err(Error::msg)?;
            if !second.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?.iter().all(|value| *value >= 0.0) {
                candle_core::bail!("second.{name} has values that a mean of squares cannot have");
            }
            if steps as usize > updates {
                candle_core::bail!("steps.{name} is {steps} after {updates} updates");
            }
            *moments = Moments::new(&first.to_device(&device)?, &second.to_device(&device)?, steps)?;
        }
        Ok(())
    }
}

/// Takes the saved `KIND.NAME`, which must have that shape and type.
fn take(
    tensors: &mut BTreeMap<String, Tensor>,
    kind: &str,
    name: &str,
    (shape, dtype): (&Shape, DType),
) -> Result<Tensor> {
    let key = format!("{kind}.{name}");
    match tensors.remove(&key) {
        Some(saved) if saved.shape() == shape && saved.dtype() == dtype => Ok(saved),
        _ => candle_core::bail!("the saved optimiser state has no matching {key:?}"),
    }
}

/// m = β₁ m + (1 - β₁) g, v = β₂ v + (1 - β₂) g², w = keep w - rate m / (√v / `root_correction` + eps), where g is the
/// gradient times `factor`.
#[derive(Debug, Clone, Copy)]
struct Rule {
    factor: f64,
    keep: f64,
    rate: f64,
    root_correction: f64,
}

impl Rule {
    /// The rule of a parameter's step number `step`, counted from 1.
    fn new(step: u32, lr: f64, decay: f64, factor: f64) -> Self {
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
