//! All that changes while a model trains, besides its parameters.

use super::adamw::AdamW;
use super::ema::Average;
use super::progress::Progress;
use super::safeguard::Safeguard;
use crate::backbone::Params;
use crate::config::TrainSettings;
use crate::strategy::Plan;
use candle_core::{Result, Tensor};
use std::collections::BTreeMap;

/// Where training stands, and the state of what updates the parameters.
#[derive(Debug)]
pub struct TrainState {
    /// Where it stands.
    pub progress: Progress,
    /// The optimiser.
    pub optimizer: AdamW,
    /// The moving average of the parameters, when one is kept.
    pub average: Option<Average>,
}

impl TrainState {
    /// Before the first step, for the parameters as they are.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(settings: &TrainSettings, plan: Plan, params: &Params, safeguard: Safeguard) -> Result<Self> {
        Ok(Self {
            progress: Progress { safeguard, ..Progress::default() },
            optimizer: AdamW::new(plan, params)?,
            average: settings.ema.map(|decay| Average::new(decay, params)).transpose()?,
        })
    }

    /// Its tensors by name.
    ///
    /// # Errors
    /// When the host is out of memory.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.optimizer.tensors()?;
        tensors.extend(self.average.iter().flat_map(Average::tensors));
        Ok(tensors)
    }

    /// Continues from saved state.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape than its parameter, or holds what no update leaves.
    pub fn restore(&mut self, progress: Progress, tensors: BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(average) = &mut self.average {
            average.restore(&tensors)?;
        }
        self.optimizer.restore(tensors, progress.updates)?;
        self.progress = progress;
        Ok(())
    }
}
