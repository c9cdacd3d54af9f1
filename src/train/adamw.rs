//! AdamW (Loshchilov and Hutter 2017) with treatments per parameter and savable state, equal to PyTorch's.

use super::gradients::Gradients;
use crate::backbone::Params;
use crate::nn::kernels::{contiguous, fused, simd};
use crate::strategy::Plan;
use crate::system::workers::Workers;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var};
use std::collections::BTreeMap;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

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

/// First and second moments of one parameter.
#[derive(Debug, Clone)]
struct Moments {
    first: Tensor,
    second: Tensor,
}

/// The optimiser: moments of the learning parameters, and the number of steps taken.
#[derive(Debug)]
pub struct AdamW {
    plan: Plan,
    moments: BTreeMap<String, Moments>,
    step: i32,
}

impl AdamW {
    /// An optimiser that has not yet taken a step.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(plan: Plan, params: &Params) -> Result<Self> {
        let zeros = |(name, var): (&str, &Var)| {
            Ok((name.to_owned(), Moments { first: var.zeros_like()?, second: var.zeros_like()? }))
        };
        Ok(Self { plan, moments: params.trained().map(zeros).collect::<Result<_>>()?, step: 0 })
    }

    /// Updates every learning parameter by its gradient, several parameters at a time on the workers.
    ///
    /// # Errors
    /// When a learning parameter has no gradient.
    pub fn step(&mut self, params: &Params, gradients: &Gradients, rates: Rates, workers: &Workers) -> Result<()> {
        self.step += 1;
        let trained: Vec<(&str, &Var)> = params.trained().collect();
        workers.map(trained, |(name, var)| {
            let (Some(moments), Some(treatment), Some(gradient)) =
                (self.moments.get(name), self.plan.get(name), gradients.get(name))
            else {
                candle_core::bail!("the learning parameter {name:?} received no gradient");
            };
            let lr = if treatment.head { rates.head_lr } else { rates.lr } * treatment.lr_scale;
            let decay = if treatment.decay { rates.weight_decay } else { 0.0 };
            update(var, moments, gradient, &self.update_rule(lr, decay))
        })?;
        Ok(())
    }

    fn update_rule(&self, lr: f64, decay: f64) -> Update {
        let correction1 = 1.0 - BETA1.powi(self.step);
        let correction2 = 1.0 - BETA2.powi(self.step);
        Update { keep: 1.0 - lr * decay, rate: lr / correction1, root_correction: correction2.sqrt() }
    }

    /// The state as named tensors: `first.NAME`, `second.NAME`.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.moments
            .iter()
            .flat_map(|(name, moments)| {
                [(format!("first.{name}"), moments.first.clone()), (format!("second.{name}"), moments.second.clone())]
            })
            .collect()
    }

    /// Steps taken so far.
    pub fn steps(&self) -> usize {
        self.step as usize
    }

    /// Continues from saved state.
    ///
    /// # Errors
    /// When a moment is missing or has another shape than its parameter.
    pub fn restore(&mut self, steps: usize, mut tensors: BTreeMap<String, Tensor>) -> Result<()> {
        for (name, moments) in &mut self.moments {
            for (kind, slot) in [("first", &mut moments.first), ("second", &mut moments.second)] {
                let key = format!("{kind}.{name}");
                match tensors.remove(&key) {
                    Some(saved) if saved.shape() == slot.shape() => *slot = saved.to_device(slot.device())?,
                    _ => candle_core::bail!("the saved optimiser state has no fitting {key:?}"),
                }
            }
        }
        self.step = steps as i32;
        Ok(())
    }
}

/// w = keep w - rate m / (√v / `root_correction` + eps), after the moments have moved.
struct Update {
    keep: f64,
    rate: f64,
    root_correction: f64,
}

fn update(var: &Var, moments: &Moments, gradient: &Tensor, rule: &Update) -> Result<()> {
    let (first, second) = (&moments.first, &moments.second);
    if fused(var) {
        let gradient = gradient.contiguous()?;
        move_average(first, &gradient, BETA1)?;
        second.inplace_op2(&gradient, &Average { beta: BETA2 as f32, squared: true })?;
        return var.as_tensor().inplace_op3(first, second, rule);
    }
    move_average(first, gradient, BETA1)?;
    assign(second, &((second * BETA2)? + (gradient.sqr()? * (1.0 - BETA2))?)?)?;
    let denominator = ((second.sqrt()? / rule.root_correction)? + EPS)?;
    let moved = ((var.as_detached_tensor() * rule.keep)? - (first.div(&denominator)? * rule.rate)?)?;
    var.set(&moved)
}

/// m = beta m + (1 - beta) x, in place.
pub(super) fn move_average(average: &Tensor, x: &Tensor, beta: f64) -> Result<()> {
    if fused(average) {
        return average.inplace_op2(&x.contiguous()?, &Average { beta: beta as f32, squared: false });
    }
    assign(average, &((average * beta)? + (x * (1.0 - beta))?)?)
}

fn assign(target: &Tensor, value: &Tensor) -> Result<()> {
    target.slice_set(&value.contiguous()?, 0, 0)
}

/// m = beta m + (1 - beta) g, or g² for the second moment.
struct Average {
    beta: f32,
    squared: bool,
}

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "moving_average"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let gradient = contiguous(s2, l2)?;
        let moment = contiguous_mut(s1, l1)?;
        let (beta, rest) = (self.beta, 1.0 - self.beta);
        simd(|| {
            if self.squared {
                moment.iter_mut().zip(gradient).for_each(|(m, g)| *m = beta * *m + rest * g * g);
            } else {
                moment.iter_mut().zip(gradient).for_each(|(m, g)| *m = beta * *m + rest * g);
            }
        });
        Ok(())
    }
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        let (first, second) = (contiguous(s2, l2)?, contiguous(s3, l3)?);
        let weights = contiguous_mut(s1, l1)?;
        let (keep, rate, eps) = (self.keep as f32, self.rate as f32, EPS as f32);
        let inverse_root = (1.0 / self.root_correction) as f32;
        simd(|| {
            for ((w, m), v) in weights.iter_mut().zip(first).zip(second) {
                *w = keep * *w - rate * m / (v.sqrt() * inverse_root + eps);
            }
        });
        Ok(())
    }
}

/// The mutable f32 values of a contiguous in-place argument.
pub(super) fn contiguous_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an in-place kernel needs a contiguous argument, got {layout:?}");
    };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("an in-place kernel needs f32 values"),
    }
}
