//! The training loop. There is one, for every strategy and device.

use super::adamw::{AdamW, Rates};
use super::checkpoint::Checkpoints;
use super::feed::Feed;
use super::mix::Mixer;
use super::progress::{EpochRecord, Progress, Running};
use super::safeguard::Measured;
use super::schedule::LrSchedule;
use super::trainer::{StepOptions, Trainer};
use crate::config::{EarlyStopSettings, TrainLength, TrainSettings};
use crate::data::Split;
use crate::data::loader::Batch;
use crate::error::{Error, Result};
use crate::metrics::{Confusion, Scores, accuracy, nll};
use crate::nn::Criterion;
use crate::system::memory::peak_memory_bytes;
use crate::system::signals::{Signal, StopRequest};
use std::time::Instant;

/// Steps in a row without a finite loss and gradient after which training gives up.
const MOST_SKIPPED: usize = 5;

/// Who wants to know how training goes.
pub trait Observer {
    /// A step was taken: the epoch from 1, the step from 1, and the mean loss of the epoch so far.
    fn step(&mut self, epoch: usize, step: usize, images: usize, loss: f64);

    /// An epoch is finished.
    ///
    /// # Errors
    /// When it cannot be recorded; training stops.
    fn epoch(&mut self, record: &EpochRecord, best: bool) -> Result<()>;

    /// Something the user should know, without an end to training.
    fn warn(&mut self, message: &str);
}

/// Everything the loop needs.
pub struct Fit<'a> {
    /// `[train]`
    pub settings: &'a TrainSettings,
    /// `[early_stop]`
    pub early_stop: &'a EarlyStopSettings,
    /// Seed of all randomness.
    pub seed: u64,
    /// The model.
    pub trainer: &'a Trainer,
    /// The training loss.
    pub criterion: &'a Criterion,
    /// The images.
    pub feed: &'a Feed,
    /// How training images are mixed; none when they are not.
    pub mixer: Option<Mixer>,
    /// Where to save.
    pub checkpoints: &'a Checkpoints,
    /// Signals.
    pub stop: &'a StopRequest,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done, or early stopping ended them.
    Finished,
    /// A signal arrived; the state is saved.
    Stopped(Signal),
}

impl Fit<'_> {
    /// Optimiser steps of one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.feed.len(Split::Train).div_ceil(self.settings.batch_size)
    }

    /// All optimiser steps.
    pub fn total_steps(&self) -> usize {
        match self.settings.length {
            TrainLength::Epochs(epochs) => epochs * self.steps_per_epoch(),
            TrainLength::Steps(steps) => steps,
        }
    }

    /// Trains from where `progress` stands to the end, saving `last` after every epoch and `best` whenever validation
    /// improves.
    ///
    /// # Errors
    /// Data errors of files that changed under way, I/O errors of checkpoints, [`Error::Numerics`] after several steps
    /// in a row without finite numbers.
    pub fn run(&self, progress: &mut Progress, optimizer: &mut AdamW, observer: &mut dyn Observer) -> Result<Ending> {
        let schedule = LrSchedule::new(self.settings.warmup, self.total_steps(), self.settings.schedule);
        // An epoch under way is finished even when its last step is taken: a signal may have come right after it.
        while (progress.step < schedule.total || progress.batch > 0) && !progress.stopped_early {
            if let Some(signal) = self.train_epoch(progress, optimizer, schedule, observer)? {
                self.save_last(progress, optimizer)?;
                return Ok(Ending::Stopped(signal));
            }
            self.finish_epoch(progress, schedule, observer)?;
            self.save_last(progress, optimizer)?;
        }
        Ok(Ending::Finished)
    }

    /// The rest of the epoch under way; a signal ends it after the current step.
    fn train_epoch(
        &self,
        progress: &mut Progress,
        optimizer: &mut AdamW,
        schedule: LrSchedule,
        observer: &mut dyn Observer,
    ) -> Result<Option<Signal>> {
        if progress.step == schedule.total {
            return Ok(None);
        }
        let batches = self.feed.train(progress.epoch, progress.batch)?;
        let mut clock = Instant::now();
        for batch in batches {
            let mut batch = batch?;
            if let Some(mixer) = &self.mixer {
                mixer.mix(&mut batch, progress.step);
            }
            self.train_step(&batch, progress, optimizer, schedule, observer)?;
            progress.batch += 1;
            progress.running.seconds += clock.elapsed().as_secs_f64();
            clock = Instant::now();
            let running = &progress.running;
            observer.step(progress.epoch + 1, progress.step, batch.labels.len(), running.loss / running.seen as f64);
            if let Some(signal) = self.stop.received() {
                return Ok(Some(signal));
            }
            if progress.step == schedule.total {
                break;
            }
        }
        Ok(None)
    }

    fn train_step(
        &self,
        batch: &Batch,
        progress: &mut Progress,
        optimizer: &mut AdamW,
        schedule: LrSchedule,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let workers = &self.trainer.workers;
        let options = StepOptions::new(self.seed, progress.step);
        let compute = |options| self.trainer.step(batch, self.criterion, options);
        let Measured { mut step, norm } =
            progress.safeguard.step((batch.labels.len(), options), workers, compute, &mut |why| observer.warn(why))?;
        if step.loss.is_finite() && norm.is_finite() {
            if let Some(limit) = self.settings.clip_grad {
                step.gradients.clip(norm, limit)?;
            }
            optimizer.step(&self.trainer.params, &step.gradients, self.rates(schedule, progress.step), workers)?;
            let images = batch.labels.len();
            progress.running.loss += step.loss * images as f64;
            progress.running.correct += step.correct;
            progress.running.seen += images;
            progress.updates += 1;
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
        Ok(())
    }

    fn rates(&self, schedule: LrSchedule, step: usize) -> Rates {
        let factor = schedule.factor(step);
        Rates {
            lr: self.settings.lr * factor,
            head_lr: self.settings.head_lr * factor,
            weight_decay: self.settings.weight_decay,
        }
    }

    /// The learning rate worth reporting: the backbone's, or the head's when only the head learns.
    fn reported_lr(&self) -> f64 {
        let only_head = self.trainer.params.trained().all(|(name, _)| name.starts_with("head."));
        if only_head { self.settings.head_lr } else { self.settings.lr }
    }

    fn finish_epoch(&self, progress: &mut Progress, schedule: LrSchedule, observer: &mut dyn Observer) -> Result<()> {
        let clock = Instant::now();
        let validation = self.validate()?;
        let running = std::mem::take(&mut progress.running);
        if running.seen == 0 {
            return Err(Error::Numerics(format!("no step of epoch {} was finite", progress.epoch + 1)));
        }
        progress.epoch += 1;
        progress.batch = 0;
        let record = EpochRecord {
            epoch: progress.epoch,
            step: progress.step,
            lr: self.reported_lr() * schedule.factor(progress.step - 1),
            train_loss: running.loss / running.seen as f64,
            train_accuracy: running.correct as f64 / running.seen as f64,
            val_loss: validation.map(|(loss, _)| loss).filter(|loss| loss.is_finite()),
            val_accuracy: validation.map(|(_, accuracy)| accuracy),
            images_per_second: images_per_second(&running),
            seconds: running.seconds + clock.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
        };
        let best = match validation {
            Some((loss, accuracy)) => progress.early_stop.update(self.early_stop, progress.epoch, loss, accuracy),
            // Without validation images the last epoch is as good a choice as any.
            None => progress.early_stop.update(self.early_stop, progress.epoch, 0.0, progress.epoch as f64),
        };
        progress.stopped_early = progress.early_stop.exhausted(self.early_stop);
        observer.epoch(&record, best)?;
        progress.history.push(record);
        if best {
            self.checkpoints.save("best", progress.step, &self.trainer.saved()?, None, progress)?;
        }
        Ok(())
    }

    /// Mean loss and accuracy on the validation images.
    fn validate(&self) -> Result<Option<(f64, f64)>> {
        if self.feed.len(Split::Val) == 0 {
            return Ok(None);
        }
        let scored = self.feed.score(self.trainer, Split::Val, &mut |_| ())?;
        let classes = scored.logits.len() / scored.labels.len();
        let scores = Scores::new(&scored.logits, &scored.labels, classes)?;
        let confusion = Confusion::new(&scored.labels, &scores.predicted(), classes);
        Ok(Some((nll(&scores, 1.0).unwrap_or(f64::NAN), accuracy(&confusion))))
    }

    fn save_last(&self, progress: &Progress, optimizer: &AdamW) -> Result<()> {
        self.checkpoints.save("last", progress.step, &self.trainer.saved()?, Some(&optimizer.tensors()), progress)
    }
}

fn images_per_second(running: &Running) -> f64 {
    if running.seconds > 0.0 { running.seen as f64 / running.seconds } else { 0.0 }
}
