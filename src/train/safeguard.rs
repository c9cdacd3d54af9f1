//! Computing a step's gradients, and once more with less when that fails: smaller micro-batches when the device runs out
//! of memory, a smaller loss scale when gradients overflow in f16.
//!
//! No images are lost: it is the same step that is repeated, with the same randomness.

use super::step_options::StepOptions;
use super::trainer::Step;
use crate::config::Precision;
use crate::system::shown::counted;
use candle_core::Result;
use serde::{Deserialize, Serialize};

/// The scale that PyTorch's `GradScaler` starts from.
const FIRST_SCALE: f64 = 65_536.0;
/// Finite steps after which the scale is doubled, as in PyTorch.
const GROWTH_INTERVAL: usize = 2000;

/// How steps are computed so that they succeed; saved with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Safeguard {
    /// Parts a step is cut into.
    pub micro_batches: usize,
    /// Factor on the loss; 1 unless products run in f16.
    pub loss_scale: f64,
    /// Finite steps since the scale last changed.
    finite_steps: usize,
}

impl Default for Safeguard {
    fn default() -> Self {
        Self::new(1, Precision::F32)
    }
}

impl Safeguard {
    /// The largest power of two whose product with a loss of a few units stays far from the end of f32.
    pub(super) const LARGEST_SCALE: f64 = 16_777_216.0;

    /// Starts with steps of `micro_batches` parts.
    pub fn new(micro_batches: usize, precision: Precision) -> Self {
        let loss_scale = if precision == Precision::F16 { FIRST_SCALE } else { 1.0 };
        Self { micro_batches, loss_scale, finite_steps: 0 }
    }

    /// Computes the step of `images` images by `compute`, as often as it takes; `say` is told why it is repeated.
    ///
    /// The result may still not be finite: when the loss itself is not, no scale helps. None when `compute` was asked to
    /// stop.
    ///
    /// # Errors
    /// Those of `compute`, except a lack of memory that smaller micro-batches can mend.
    pub fn step(
        &mut self,
        (images, options): (usize, StepOptions<'_>),
        compute: impl Fn(StepOptions<'_>) -> Result<Option<Step>>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<Step>> {
        loop {
            let (micro_batches, loss_scale) = (self.micro_batches, self.loss_scale);
            let computed = match compute(StepOptions { micro_batches, loss_scale, ..options }) {
                Err(error) if is_out_of_memory(&error) && micro_batches < images => {
                    self.micro_batches = (2 * micro_batches).min(images);
                    say(&format!(
                        "out of device memory with {} at a time: continuing with {}",
                        counted(images.div_ceil(micro_batches), "image"),
                        images.div_ceil(self.micro_batches)
                    ));
                    continue;
                }
                computed => computed?,
            };
            let Some(step) = computed else { return Ok(None) };
            if step.loss.is_finite() && !step.norm.is_finite() && loss_scale > 1.0 {
                (self.loss_scale, self.finite_steps) = ((loss_scale / 2.0).max(1.0), 0);
                continue;
            }
            self.count(step.norm);
            return Ok(Some(step));
        }
    }

    /// Doubles the scale after a long time without an overflow.
    fn count(&mut self, norm: f64) {
        if self.loss_scale == 1.0 || !norm.is_finite() {
            return;
        }
        self.finite_steps += 1;
        if self.finite_steps >= GROWTH_INTERVAL {
            (self.loss_scale, self.finite_steps) = ((2.0 * self.loss_scale).min(Self::LARGEST_SCALE), 0);
        }
    }
}

/// Whether a device had too little memory. The driver and cuBLAS say so by name, wherever in the chain of causes.
fn is_out_of_memory(error: &candle_core::Error) -> bool {
    let text = format!("{error:?} {error}");
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory"].iter().any(|name| text.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::Params;
    use crate::nn::workers::Workers;
    use crate::train::accumulator::gradients_of;
    use candle_core::{DType, Device, Tensor};
    use std::cell::Cell;

    /// A step whose only gradient is `value`.
    fn step_with(value: f32) -> Step {
        let weight = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap();
        let params = Params::from_iter([("w", weight)]).train_where(|_| true).unwrap();
        let loss = (params.tensor("w").unwrap() * f64::from(value)).unwrap().sum_all().unwrap();
        let gradients = gradients_of(&loss, &params).unwrap();
        let norm = gradients.norm(&Workers::new(1, &Device::Cpu).unwrap()).unwrap();
        Step { gradients, loss: 1.0, correct: 0, norm }
    }

    fn run(guard: &mut Safeguard, compute: impl Fn(StepOptions<'_>) -> Result<Step>) -> (Result<Step>, Vec<String>) {
        let mut said = Vec::new();
        let compute = |options: StepOptions<'_>| compute(options).map(Some);
        let result = guard.step((6, StepOptions::new(0, 0)), compute, &mut |message| said.push(message.to_owned()));
        (result.map(Option::unwrap), said)
    }

    #[test]
    fn a_lack_of_memory_halves_the_micro_batch_until_it_fits() {
        let mut guard = Safeguard::default();
        let tried = Cell::new(Vec::new());
        let (result, said) = run(&mut guard, |options| {
            let mut seen = tried.take();
            seen.push(options.micro_batches);
            tried.set(seen);
            if options.micro_batches < 6 {
                candle_core::bail!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
            }
            Ok(step_with(1.0))
        });
        assert!(result.is_ok());
        assert_eq!((tried.take(), guard.micro_batches), (vec![1, 2, 4, 6], 6));
        assert_eq!(said.len(), 3);
        assert_eq!(said[0], "out of device memory with 6 images at a time: continuing with 3");
    }

    #[test]
    fn one_image_that_does_not_fit_is_an_error_and_so_is_anything_else() {
        let mut guard = Safeguard::new(6, Precision::F32);
        let (result, _) = run(&mut guard, |_| candle_core::bail!("CUBLAS_STATUS_ALLOC_FAILED"));
        assert!(result.is_err());
        let mut guard = Safeguard::default();
        let (result, said) = run(&mut guard, |_| candle_core::bail!("shape mismatch"));
        assert!(result.is_err() && said.is_empty() && guard.micro_batches == 1);
    }

    #[test]
    fn the_loss_scale_falls_on_overflow_and_rises_after_many_steps() {
        let mut guard = Safeguard::new(1, Precision::F16);
        let overflow = |options: StepOptions<'_>| {
            Ok(step_with(if options.loss_scale > 1024.0 { f32::INFINITY } else { options.loss_scale as f32 }))
        };
        let (result, _) = run(&mut guard, overflow);
        assert_eq!((result.unwrap().norm, guard.loss_scale), (1024.0, 1024.0));
        for _ in 1..GROWTH_INTERVAL {
            run(&mut guard, overflow).0.unwrap();
        }
        assert_eq!(guard.loss_scale, 2048.0);
    }

    #[test]
    fn an_infinite_loss_is_not_repeated() {
        let mut guard = Safeguard::new(1, Precision::F16);
        let (result, _) = run(&mut guard, |_| Ok(Step { loss: f64::INFINITY, ..step_with(f32::NAN) }));
        assert!(!result.unwrap().norm.is_finite());
        assert_eq!(guard.loss_scale, FIRST_SCALE);
    }
}
