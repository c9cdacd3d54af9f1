//! `vitadapt finetune --find-lr`: the learning-rate range test of a config, as a table, a picture and a CSV.

use super::finetune::Training;
use crate::error::{Error, Result};
use crate::report::{Console, Status, key_value_table, plots};
use crate::system::signals::StopRequest;
use crate::train::fit::Observer;
use crate::train::lr_finder::Sweep;
use crate::train::progress::EpochRecord;
use serde_json::json;
use std::path::Path;

/// The file of all steps.
const STEPS: &str = "lr-finder.csv";

impl Training {
    /// Tests the learning rates and says which to take.
    ///
    /// # Errors
    /// As training, and when the results cannot be written.
    pub(super) fn find_lr(mut self, stop: &StopRequest, console: &Console) -> Result<()> {
        let mut state = self.initial_state(console, false)?;
        let kept = self.keep(stop, console)?;
        let found = match kept {
            None => self.ready(stop).find_lr(&mut state, &mut Watcher(console))?,
            Some(_) => None,
        };
        let Some(sweep) = found else {
            // Only a signal ends it without a result.
            return stop.received().map_or(Ok(()), |signal| Err(self.stopped(signal)?));
        };
        write_steps(&self.run.path(STEPS), &sweep)?;
        plots::save_lr_finder(&self.run.path("plots/lr-finder"), &self.title(), &sweep)?;
        let result = json!({
            "run": self.run.folder(),
            "steps": sweep.points.len(),
            "lr": sweep.suggestion.map(|point| point.lr),
            "head_lr": sweep.suggestion.map(|point| point.head_lr),
            "picture": self.run.path("plots/lr-finder.png"),
        });
        self.record.status = Status::Done;
        self.record.result = Some(result.clone());
        self.run.write_record(&self.record)?;
        let train = &self.session.settings.train;
        let set = |name: &str, rate: Option<f64>, now: f64| match rate {
            Some(rate) => format!("train.{name} = {rate:.1e} (now {now:.1e})"),
            None => format!("no rate lowered the loss (now {now:.1e})"),
        };
        console.output(&result, || {
            key_value_table(&[
                ("suggestion", set("lr", sweep.suggestion.map(|point| point.lr), train.lr)),
                ("for the head", set("head_lr", sweep.suggestion.map(|point| point.head_lr), train.head_lr)),
                ("steps", sweep.points.len().to_string()),
                ("picture", self.run.path("plots/lr-finder.png").display().to_string()),
            ])
        })
    }
}

fn write_steps(path: &Path, sweep: &Sweep) -> Result<()> {
    let failed = Error::csv(path);
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    sweep.points.iter().try_for_each(|point| writer.serialize(point)).map_err(failed)?;
    writer.flush().map_err(Error::io("write", path))
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
