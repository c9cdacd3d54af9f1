//! One optimiser step of the loop.

use super::adamw::Rates;
use super::fit::{Fit, MOST_SKIPPED, Observer};
use super::progress::Progress;
use super::sam::uphill;
use super::schedule::LrSchedule;
use super::state::TrainState;
use super::step_options::StepOptions;
use super::trainer::{Phase, Step};
use crate::data::transform::Bags;
use crate::data::upload::Sent;
use crate::error::{Error, Result};

impl Fit<'_> {
    /// Updates the parameters that are trainable in `phase` by a batch, unless its numbers are not finite. False when a signal came before the step was done: then nothing has changed.
    pub(super) fn train_step(
        &self,
        phase: &Phase,
        sent: &Sent,
        state: &mut TrainState,
        schedule: LrSchedule,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let progress = &mut state.progress;
        let Some(mut step) = self.gradients(phase, sent, progress, observer)? else { return Ok(false) };
        if step.loss.is_finite() && step.norm.is_finite() {
            if let Some(limit) = self.settings.clip_grad {
                step.gradients.clip(step.norm, limit);
            }
            let rates = self.rates(schedule, progress.step);
            let model = self.trainer.model;
            state.optimizer.step(&phase.params, &step.gradients, rates, &model.workers)?;
            self.trainer.constrain()?;
            progress.updates += 1;
            if let Some(average) = &mut state.average {
                average.update(&model.params, progress.updates, &model.workers)?;
            }
            let images = sent.batch.labels.len();
            progress.running.loss += step.loss * images as f64;
            progress.running.correct += step.correct;
            progress.running.seen += images;
            progress.skipped = 0;
        } else {
            progress.skipped += 1;
            let (epoch, number) = (progress.epoch + 1, progress.step + 1);
            let numbers = format!("the loss is {} and the gradient norm {}", step.loss, step.norm);
            if progress.skipped >= MOST_SKIPPED.min(self.total_steps()) {
                let found = format!(
                    "{} steps in a row were not finite: in epoch {epoch}, step {number}, {numbers}",
                    progress.skipped
                );
                // Before the first update no learning rate is to blame.
                return Err(if progress.updates == 0 && !step.loss.is_finite() {
                    Error::NotFinite(found)
                } else {
                    Error::Numerics(found)
                });
            }
            observer.warn(&format!("epoch {epoch}, step {number} is skipped: {numbers}"));
        }
        progress.step += 1;
        Ok(true)
    }

    /// What a batch gives; none when a signal came first.
    ///
    /// With sharpness-aware minimisation the gradients are those a little uphill, with the same random masks; loss and
    /// accuracy are those of the parameters themselves.
    fn gradients(
        &self,
        phase: &Phase,
        sent: &Sent,
        progress: &mut Progress,
        observer: &mut dyn Observer,
    ) -> Result<Option<Step>> {
        let Sent { batch, .. } = sent;
        let before = progress.safeguard;
        let options =
            StepOptions { stop: Some(self.stop), inputs: sent.inputs(), ..StepOptions::new(self.seed, progress.step) };
        let compute = |options: StepOptions<'_>| self.trainer.step(phase, batch, options);
        let mut pass = || {
            let images = batch.bags.as_ref().map_or(batch.labels.len(), Bags::most);
            progress.safeguard.step((images, options), compute, &mut |why| observer.warn(why))
        };
        let Some(here) = pass()? else { return Ok(None) };
        let Some(radius) = self.settings.sam.filter(|_| here.norm.is_finite()) else { return Ok(Some(here)) };
        let sharp = uphill(&phase.params, &here.gradients, here.norm, radius, || Ok(pass()?))?;
        if sharp.is_none() {
            // After resumption the whole step is taken anew.
            progress.safeguard = before;
        }
        Ok(sharp.map(|sharp| Step { loss: here.loss, correct: here.correct, ..sharp }))
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
