//! AdamW (Loshchilov and Hutter 2017) with treatments per parameter and savable state, equal to PyTorch's.

use super::gradients::Gradients;
use crate::backbone::Params;
use crate::nn::kernels::{contiguous, fused, simd};
use crate::strategy::Plan;
use crate::system::workers::Workers;
use candle_core::{CpuStorage, Device, InplaceOp2, InplaceOp3, Layout, Result, Shape, Tensor, Var};
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

/// First and second moments of one parameter, and its steps so far: one that joins late starts from none, as in PyTorch.
#[derive(Debug, Clone)]
struct Moments {
    first: Tensor,
    second: Tensor,
    steps: u32,
}

/// The optimiser: the state of the learning parameters.
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
            Ok((name.to_owned(), Moments { first: var.zeros_like()?, second: var.zeros_like()?, steps: 0 }))
        };
        Ok(Self { plan, moments: params.trained().map(zeros).collect::<Result<_>>()? })
    }

    /// Updates every learning parameter of `params` by its gradient, several parameters at a time on the workers. Those
    /// that do not learn yet are left as they are.
    ///
    /// # Errors
    /// When a learning parameter has no gradient.
    pub fn step(&mut self, params: &Params, gradients: &Gradients, rates: Rates, workers: &Workers) -> Result<()> {
        let trained: Vec<(&str, &Var)> = params.trained().collect();
        for (name, _) in &trained {
            if let Some(moments) = self.moments.get_mut(*name) {
                moments.steps += 1;
            }
        }
        workers.map(trained, |(name, var)| {
            let (Some(moments), Some(treatment), Some(gradient)) =
                (self.moments.get(name), self.plan.get(name), gradients.get(name))
            else {
                candle_core::bail!("the learning parameter {name:?} received no gradient");
            };
            let lr = if treatment.head { rates.head_lr } else { rates.lr } * treatment.lr_scale;
            let decay = if treatment.decay { rates.weight_decay } else { 0.0 };
            update(var, moments, gradient, &Update::new(moments.steps, lr, decay))
        })?;
        Ok(())
    }

    /// The state as named tensors: `first.NAME`, `second.NAME`, `steps.NAME`.
    ///
    /// # Errors
    /// When the host is out of memory.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (name, moments) in &self.moments {
            tensors.insert(format!("first.{name}"), moments.first.clone());
            tensors.insert(format!("second.{name}"), moments.second.clone());
            tensors.insert(format!("steps.{name}"), Tensor::new(moments.steps, &Device::Cpu)?);
        }
        Ok(tensors)
    }

    /// Continues from saved state.
    ///
    /// # Errors
    /// When something of a parameter is missing or a moment has another shape than it.
    pub fn restore(&mut self, mut tensors: BTreeMap<String, Tensor>) -> Result<()> {
        for (name, moments) in &mut self.moments {
            for (kind, slot) in [("first", &mut moments.first), ("second", &mut moments.second)] {
                *slot = take(&mut tensors, kind, name, slot.shape())?.to_device(slot.device())?;
            }
            moments.steps = take(&mut tensors, "steps", name, &Shape::from(()))?.to_scalar()?;
        }
        Ok(())
    }
}

/// Takes the saved `KIND.NAME`, which must have that shape.
fn take(tensors: &mut BTreeMap<String, Tensor>, kind: &str, name: &str, shape: &Shape) -> Result<Tensor> {
    let key = format!("{kind}.{name}");
    match tensors.remove(&key) {
        Some(saved) if saved.shape() == shape => Ok(saved),
        _ => candle_core::bail!("the saved optimiser state has no fitting {key:?}"),
    }
}

/// w = keep w - rate m / (√v / `root_correction` + eps), after the moments have moved.
struct Update {
    keep: f64,
    rate: f64,
    root_correction: f64,
}

impl Update {
    /// The rule of a parameter's step number `step`, counted from 1.
    fn new(step: u32, lr: f64, decay: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powi(step as i32);
        let root_correction = correction(BETA2).sqrt();
        Self { keep: 1.0 - lr * decay, rate: lr / correction(BETA1), root_correction }
    }
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
