//! The learning-rate range test of a config, as a table, a picture and a CSV.

use super::Training;
use crate::error::{Error, Result};
use crate::experiment::record::Completed;
use crate::report::{Console, LrFinderResult, RunResult, Status, plots};
use crate::system::signals::{Signal, StopRequest};
use crate::system::tables::write_csv;
use crate::train::fit::Observer;
use crate::train::progress::EpochRecord;

/// The file of all steps.
const STEPS: &str = "lr-finder.csv";

impl Training {
    /// Tests the learning rates and says which to take.
    ///
    /// # Errors
    /// As training, and when the results cannot be written.
    pub fn find_lr(&mut self, stop: &StopRequest, console: &Console) -> Result<Completed> {
        let mut state = self.initial_state(console, false)?;
        let found = match self.run_frozen_layers(stop, console)? {
            None => self.ready(stop).find_lr(&mut state, &mut Watcher(console))?,
            Some(_) => None,
        };
        let Some(sweep) = found else {
            // Only a signal ends it without a result.
            let signal = stop.received().unwrap_or(Signal::Interrupt);
            return Err(Error::Stopped { signal, run: None });
        };
        write_csv(&self.run.path(STEPS), |table| sweep.points.iter().try_for_each(|point| table.serialize(point)))?;
        let picture = plots::Titled { title: &self.title(), of: &sweep };
        plots::save(&picture, &self.run.path("plots/lr-finder"))?;
        let train = &self.session.settings.train;
        let result = RunResult::LrFinder(LrFinderResult {
            run: self.run.folder().to_path_buf(),
            steps: sweep.points.len(),
            lr: sweep.suggestion.map(|point| point.lr),
            head_lr: sweep.suggestion.map(|point| point.head_lr),
            current_lr: train.lr,
            current_head_lr: train.head_lr,
            picture: self.run.path("plots/lr-finder.png"),
        });
        self.record.status = Status::Done;
        self.record.result = Some(result.clone());
        self.run.write_record(&self.record)?;
        Ok(Completed::new(&self.run, &self.record, result, &[]))
    }
}

/// Warnings are for the user; there are no epochs.
struct Watcher<'a>(&'a Console);

impl Observer for Watcher<'_> {
    fn step(&mut self, _epoch: usize, step: usize, _images: usize, loss: f64) {
        self.0.detail(format!("step {step:>3}  loss {loss:.4}"));
    }

    fn epoch(&mut self, _record: &EpochRecord, _best: bool) -> Result<()> {
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        self.0.warn(message);
    }
}
