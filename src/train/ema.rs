//! An exponential moving average of the trainable parameters (Polyak and Juditsky 1992; timm's `ModelEmaV3`): what is
//! validated and kept, while the optimiser goes on from the parameters themselves.

use super::snapshot::{snapshot, with_values};
use crate::backbone::{Params, check_finite};
use crate::error::Result;
use crate::nn::workers::Workers;
use crate::optim::average::update_average;
use candle_core::{Error, Tensor, Var};
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
        workers.map(pairs, |(average, var)| update_average(average, &var.as_detached_tensor(), decay))?;
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
