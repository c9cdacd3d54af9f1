//! The end of an epoch: validation, the record, the best and the soup's ingredients.

use super::early_stop::ValScore;
use super::fit::{Fit, Observer};
use super::progress::{EpochRecord, Progress};
use super::schedule::LrSchedule;
use super::state::TrainState;
use super::validation::{Validation, validate};
use crate::backbone::Role;
use crate::error::Result;
use crate::system::memory::peak_memory_bytes;
use std::time::Instant;

impl Fit<'_> {
    /// Scores and records the epoch under way, with the averaged parameters where there are any.
    pub(super) fn finish_epoch(
        &self,
        state: &mut TrainState,
        schedule: LrSchedule,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let TrainState { progress, average, .. } = state;
        match average {
            Some(average) => {
                average.instead_of(&self.trainer.model.params, || self.record_epoch(progress, schedule, observer))
            }
            None => self.record_epoch(progress, schedule, observer),
        }
    }

    fn record_epoch(&self, progress: &mut Progress, schedule: LrSchedule, observer: &mut dyn Observer) -> Result<()> {
        let clock = Instant::now();
        let validation = self.validate()?;
        let running = std::mem::take(&mut progress.running);
        progress.epoch += 1;
        progress.batch = 0;
        let scores = validation.as_ref().map(|found| found.scores);
        let record = EpochRecord {
            epoch: progress.epoch,
            step: progress.step,
            lr: self.reported_lr() * schedule.factor(progress.step - 1),
            train_loss: running.loss / running.seen as f64,
            train_accuracy: running.correct as f64 / running.seen as f64,
            val_loss: scores.map(|scores| scores.loss).filter(|loss| loss.is_finite()),
            val_accuracy: scores.map(|scores| scores.accuracy),
            val_score: scores.map(|scores| scores.score).filter(|score| score.is_finite()),
            images_per_second: self
                .source
                .frozen
                .is_none()
                .then(|| running.seen as f64 / running.seconds)
                .filter(|speed| speed.is_finite()),
            seconds: running.seconds + clock.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
        };
        // Without validation images the last epoch is as good a choice as any.
        let latest = ValScore { score: progress.epoch as f64, ..ValScore::default() };
        let best = progress.early_stop.update(progress.epoch, scores.unwrap_or(latest));
        progress.stopped_early = progress.early_stop.exhausted(self.patience);
        if let Some(found) = validation {
            progress.validation.add(progress.epoch, found.images, best);
        }
        observer.epoch(&record, best)?;
        progress.history.push(record);
        if best {
            self.checkpoints.save("best", progress.step, &self.trainer.model.saved()?, None, progress)?;
        }
        self.keep_ingredient(progress)
    }

    /// The scores on the validation images.
    pub(super) fn validate(&self) -> Result<Option<Validation>> {
        // Buffers of training and of passes without gradients differ in size.
        self.trainer.model.workers.free_buffers();
        validate(self.source, self.trainer.model, self.metric)
    }

    /// The learning rate worth reporting: the backbone's, or the head's when only the head is trainable.
    fn reported_lr(&self) -> f64 {
        let only_head = self.trainer.model.params.trained().all(|(name, _)| Role::of(name) == Some(Role::Head));
        if only_head { self.settings.head_lr } else { self.settings.lr }
    }
}
