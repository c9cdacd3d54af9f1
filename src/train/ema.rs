//! An exponential moving average of the trainable parameters (Polyak and Juditsky 1992; timm's `ModelEmaV3`): what is
//! validated and kept, while the optimiser goes on from the parameters themselves.

use super::snapshot::{snapshot, with_values};
use crate::backbone::{Params, check_finite};
use crate::error::Result;
use crate::kernels::{contiguous, contiguous_mut, fused, simd};
use crate::nn::workers::Workers;
use candle_core::{CpuStorage, Error, InplaceOp2, Layout, Tensor, Var};
use std::collections::BTreeMap;

/// Marks the averages among the saved tensors.
const PREFIX: &str = "average.";

/// The averages by parameter.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    values: BTreeMap<String, Tensor>,
}

impl Average {
    /// Starts from the parameters as they are. `decay` is below 1.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(decay: f64, params: &Params) -> candle_core::Result<Self> {
        Ok(Self { decay, values: snapshot(params)? })
    }

    /// Takes in the parameters after update number `update`, from 1.
    ///
    /// The first updates use the smaller decay (1 + t) / (10 + t), as in TensorFlow's average: with the decay alone, a
    /// short training would hardly leave its start.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update(&mut self, params: &Params, update: usize, workers: &Workers) -> candle_core::Result<()> {
        let decay = self.decay.min((1.0 + update as f64) / (10.0 + update as f64));
        let pairs: Vec<(&Tensor, &Var)> =
            self.values.values().zip(params.trained()).map(|(average, (_, var))| (average, var)).collect();
        workers.map(pairs, |(average, var)| move_average(average, &var.as_detached_tensor(), decay))?;
        Ok(())
    }

    /// Runs `work` with the averages in place of the parameters.
    ///
    /// # Errors
    /// Those of `work`, and those of the device.
    pub fn instead_of<R>(&self, params: &Params, work: impl FnOnce() -> Result<R>) -> Result<R> {
        with_values(params, |name, _| Ok(self.values[name].clone()), work)
    }

    /// The state as named tensors: `average.NAME`.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.values.iter().map(|(name, average)| (format!("{PREFIX}{name}"), average.clone()))
    }

    /// Continues from saved state.
    ///
    /// # Errors
    /// When an average is missing, has another shape than its parameter, or holds values that are not finite.
    pub fn restore(&mut self, tensors: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        for (name, average) in &mut self.values {
            match tensors.get(&format!("{PREFIX}{name}")) {
                Some(saved) if saved.shape() == average.shape() => {
                    check_finite(&format!("{PREFIX}{name}"), saved).map_err(Error::msg)?;
                    *average = saved.to_device(average.device())?;
                }
                _ => candle_core::bail!("the saved state has no matching average of {name:?}"),
            }
        }
        Ok(())
    }
}

/// m = decay m + (1 - decay) x, in place.
fn move_average(average: &Tensor, x: &Tensor, decay: f64) -> candle_core::Result<()> {
    if fused(average) {
        return average.inplace_op2(&x.contiguous()?, &Move { decay: decay as f32 });
    }
    average.slice_set(&((average * decay)? + (x * (1.0 - decay))?)?.contiguous()?, 0, 0)
}

struct Move {
    decay: f32,
}

impl InplaceOp2 for Move {
    fn name(&self) -> &'static str {
        "moving_average"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> candle_core::Result<()> {
        let (average, x) = (contiguous_mut(s1, l1)?, contiguous(s2, l2)?);
        let (decay, rest) = (self.decay, 1.0 - self.decay);
        simd(|| average.iter_mut().zip(x).for_each(|(m, x)| *m = decay * *m + rest * x));
        Ok(())
    }
}
