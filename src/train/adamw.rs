//! `AdamW` with treatments per parameter and savable state; the update itself is in [`optim::adamw`](crate::optim::adamw).

use crate::backbone::{Params, check_finite};
use crate::nn::workers::Workers;
use crate::optim::adamw::{Rule, update};
use crate::optim::gradients::Gradients;
use crate::strategy::Plan;
use candle_core::{DType, Device, Error, Result, Shape, Tensor, Var};
use std::collections::BTreeMap;

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
        let of_parameter = |(name, var): (&str, &Var)| match (self.moments.get(name), self.plan.get(name)) {
            (Some(moments), Some(treatment)) => {
                let lr = if treatment.head { rates.head_lr } else { rates.lr } * treatment.lr_scale;
                let decay = if treatment.decay { rates.weight_decay } else { 0.0 };
                let rule = Rule::new(moments.steps, lr, decay, gradients.factor());
                let operands = [var.as_detached_tensor(), moments.both.clone(), gradients.tensor(name)?.contiguous()?];
                Ok((rule, operands))
            }
            _ => candle_core::bail!("the optimiser does not know the trainable parameter {name:?}"),
        };
        update(trained.into_iter().map(of_parameter).collect::<Result<_>>()?, workers)
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
