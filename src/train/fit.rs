//! The training loop. There is one, for every strategy and device.

use super::checkpoint::Checkpoints;
use super::mix::Mixer;
use super::progress::EpochRecord;
use super::schedule::LrSchedule;
use super::state::TrainState;
use super::trainer::Trainer;
use crate::config::{TrainLength, TrainSettings};
use crate::data::loader::Batch;
use crate::data::upload::ahead;
use crate::data::{Destination, Split};
use crate::error::Result;
use crate::metrics::SelectionMetric;
use crate::model::{BatchSource, Batches};
use crate::system::signals::{Signal, StopRequest};
use std::time::{Duration, Instant};

/// Steps in a row without a finite loss and gradient after which training gives up.
pub(super) const MOST_SKIPPED: usize = 5;

/// Times the duration of a save that must pass before an epoch is saved again: saving takes at most a twentieth of the
/// time, however short epochs are and however large the model.
const SAVING_SHARE: u32 = 20;

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
    /// What decides which epoch is best.
    pub metric: SelectionMetric,
    /// `early_stop.patience`
    pub patience: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// What computes the gradients of the model.
    pub trainer: Trainer<'a>,
    /// The images.
    pub source: &'a BatchSource,
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
        self.source.len(Split::Train).div_ceil(self.settings.batch_size)
    }

    /// All optimiser steps.
    pub fn total_steps(&self) -> usize {
        match self.settings.length {
            TrainLength::Epochs(epochs) => epochs * self.steps_per_epoch(),
            TrainLength::Steps(steps) => steps,
        }
    }

    /// Trains from where `state` stands to the end, saving `best` whenever validation improves, and `last` at the end, on a
    /// signal, after every epoch as far as saving takes little of the time, and within an epoch as often as the settings
    /// ask for.
    ///
    /// # Errors
    /// Data errors of files that changed under way, I/O errors of checkpoints, [`Error::Numerics`] after several steps
    /// in a row without finite numbers.
    ///
    /// [`Error::Numerics`]: crate::error::Error::Numerics
    pub fn run(&self, state: &mut TrainState, observer: &mut dyn Observer) -> Result<Ending> {
        let schedule = LrSchedule::new(self.settings.warmup, self.total_steps(), self.settings.schedule);
        let mut saved = LastSave::now(state.progress.step);
        // An epoch under way is finished even when its last step is taken: a signal may have come right after it.
        while (state.progress.step < schedule.total || state.progress.batch > 0) && !state.progress.stopped_early {
            if let Some(signal) = self.train_epoch(state, schedule, &mut saved, observer)? {
                self.save_last(state)?;
                return Ok(Ending::Stopped(signal));
            }
            self.finish_epoch(state, schedule, observer)?;
            let progress = &state.progress;
            if progress.step >= schedule.total || progress.stopped_early || saved.is_affordable() {
                saved = self.save_last(state)?;
            }
        }
        Ok(Ending::Finished)
    }

    /// The rest of the epoch under way. A signal ends it: between two steps, or within one, which is then left out and
    /// taken anew after resumption.
    fn train_epoch(
        &self,
        state: &mut TrainState,
        schedule: LrSchedule,
        saved: &mut LastSave,
        observer: &mut dyn Observer,
    ) -> Result<Option<Signal>> {
        if state.progress.step == schedule.total {
            return Ok(None);
        }
        self.trainer.model.workers.free_buffers();
        let batches = self.source.train(state.progress.epoch, state.progress.batch, self.destination())?;
        let phase = self.trainer.phase(state.progress.epoch);
        let batches = self.mixed(batches, state.progress.step);
        let (device, row) = (self.trainer.model.device(), self.trainer.model.input_shape());
        ahead((device, &row), batches, |batches| {
            let mut clock = Instant::now();
            for sent in batches {
                let sent = sent?;
                if !self.train_step(&phase, &sent, state, schedule, observer)? {
                    return Ok(self.stop.received());
                }
                let progress = &mut state.progress;
                progress.batch += 1;
                progress.running.seconds += clock.elapsed().as_secs_f64();
                clock = Instant::now();
                let (running, images) = (&progress.running, sent.batch.labels.len());
                observer.step(progress.epoch + 1, progress.step, images, running.loss / running.seen as f64);
                if let Some(signal) = self.stop.received() {
                    return Ok(Some(signal));
                }
                if progress.step == schedule.total {
                    break;
                }
                if saved.is_due(self.settings, progress.step) {
                    *saved = self.save_last(state)?;
                }
            }
            Ok(None)
        })
    }

    /// Where the batches go.
    pub(super) fn destination(&self) -> Destination {
        Destination { mixed: self.mixer.is_some(), ..Destination::of(self.trainer.model.device()) }
    }

    /// The batches of consecutive steps from `step` on, mixed.
    pub(super) fn mixed<'a>(
        &self,
        batches: Batches<'a>,
        step: usize,
    ) -> impl Iterator<Item = Result<Batch>> + Send + use<'a> {
        let mixer = self.mixer;
        (step..).zip(batches).map(move |(step, batch)| {
            let mut batch = batch?;
            if let Some(mixer) = &mixer {
                mixer.mix(&mut batch, step);
            }
            Ok(batch)
        })
    }

    fn save_last(&self, state: &TrainState) -> Result<LastSave> {
        let (step, clock) = (state.progress.step, Instant::now());
        self.checkpoints.save("last", step, &self.trainer.model.saved()?, Some(&state.tensors()?), &state.progress)?;
        Ok(LastSave { took: clock.elapsed(), ..LastSave::now(step) })
    }
}

/// When `last` was saved.
struct LastSave {
    step: usize,
    time: Instant,
    took: Duration,
}

impl LastSave {
    fn now(step: usize) -> Self {
        Self { step, time: Instant::now(), took: Duration::ZERO }
    }

    /// Whether another one takes little of the time since.
    fn is_affordable(&self) -> bool {
        self.time.elapsed() >= SAVING_SHARE * self.took
    }

    /// Whether the settings ask for another one.
    fn is_due(&self, settings: &TrainSettings, step: usize) -> bool {
        let minutes = self.time.elapsed().as_secs_f64() / 60.0;
        let (steps_allowed, minutes_allowed) = (settings.checkpoint_steps, settings.checkpoint_minutes);
        (steps_allowed > 0 && step - self.step >= steps_allowed)
            || (minutes_allowed > 0.0 && minutes >= minutes_allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn epochs_are_saved_as_far_as_it_takes_little_of_the_time() {
        let time = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        let affordable = |took: u64| LastSave { step: 0, time, took: Duration::from_secs(took) }.is_affordable();
        assert!(affordable(0) && affordable(3) && !affordable(4));
        assert!(LastSave::now(0).is_affordable()); // the first epoch
    }

    #[test]
    fn a_save_is_due_by_steps_or_by_minutes() {
        let due = |set: &str, step: usize, minutes: u64| {
            let settings = config::testing::settings(&[set]).train;
            let time = Instant::now().checked_sub(Duration::from_secs(60 * minutes)).unwrap();
            LastSave { time, ..LastSave::now(10) }.is_due(&settings, step)
        };
        assert!(due("train.checkpoint_steps=3", 13, 0) && !due("train.checkpoint_steps=3", 12, 0));
        // Ten minutes is the default.
        assert!(due("train.epochs=1", 11, 10) && !due("train.epochs=1", 1_000, 9));
        assert!(due("train.checkpoint_minutes=0.5", 11, 1));
        assert!(!due("train.checkpoint_minutes=0", 1_000, 20));
    }
}
