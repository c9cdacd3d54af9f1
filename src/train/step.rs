//! One optimiser step of the loop.

use super::adamw::Rates;
use super::fit::{Fit, MOST_SKIPPED, Observer};
use super::sam::uphill;
use super::schedule::LrSchedule;
use super::state::TrainState;
use super::trainer::Step;
use crate::data::loader::Batch;
use crate::error::{Error, Result};

impl Fit<'_> {
    /// Updates the parameters by a batch, unless its numbers are not finite. False when a signal came before the step
    /// was done: then nothing has changed.
    pub(super) fn train_step(
        &self,
        batch: &Batch,
        state: &mut TrainState,
        schedule: LrSchedule,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let (trainer, progress) = (self.trainer, &mut state.progress);
        let Some((mut step, norm)) = self.gradients(batch, progress.step)? else { return Ok(false) };
        if step.loss.is_finite() && norm.is_finite() {
            if let Some(limit) = self.settings.clip_grad {
                step.gradients.clip(norm, limit)?;
            }
            let rates = self.rates(schedule, progress.step);
            state.optimizer.step(&trainer.params, &step.gradients, rates, &trainer.workers)?;
            progress.updates += 1;
            if let Some(average) = &mut state.average {
                average.update(&trainer.params, progress.updates, &trainer.workers)?;
            }
            let images = batch.labels.len();
            progress.running.loss += step.loss * images as f64;
            progress.running.correct += step.correct;
            progress.running.seen += images;
            progress.skipped = 0;
        } else {
            progress.skipped += 1;
            let (epoch, number) = (progress.epoch + 1, progress.step + 1);
            let numbers = format!("the loss is {} and the gradient norm {norm}", step.loss);
            if progress.skipped >= MOST_SKIPPED.min(self.total_steps()) {
                return Err(Error::Numerics(format!(
                    "{} steps in a row were not finite: in epoch {epoch}, step {number}, {numbers}",
                    progress.skipped
                )));
            }
            observer.warn(&format!("epoch {epoch}, step {number} is skipped: {numbers}"));
        }
        progress.step += 1;
        Ok(true)
    }

    /// What a batch gives, and the norm of its gradients; none when a signal came first.
    ///
    /// With sharpness-aware minimisation the gradients are those a little uphill, with the same random masks; loss and
    /// accuracy are those of the parameters themselves.
    fn gradients(&self, batch: &Batch, number: usize) -> Result<Option<(Step, f64)>> {
        let trainer = self.trainer;
        let pass = || trainer.step(batch, self.criterion, self.settings.accumulate, self.seed, number, self.stop);
        let Some(mut step) = pass()? else { return Ok(None) };
        let norm = step.gradients.norm(&trainer.workers)?;
        let Some(radius) = self.settings.sam.filter(|_| norm.is_finite()) else { return Ok(Some((step, norm))) };
        let sharp = uphill(&trainer.params, &step.gradients, norm, radius, || Ok(pass()?))?;
        let Some(sharp) = sharp else { return Ok(None) };
        step.gradients = sharp.gradients;
        let norm = step.gradients.norm(&trainer.workers)?;
        Ok(Some((step, norm)))
    }

    fn rates(&self, schedule: LrSchedule, step: usize) -> Rates {
        let factor = schedule.factor(step);
        Rates {
            lr: self.settings.lr * factor,
            head_lr: self.settings.head_lr * factor,
            weight_decay: self.settings.weight_decay,
        }
    }
}
