//! A finished training that is given more epochs: when that is possible, and how it goes on.

use crate::backbone::Params;
use crate::config::{Schedule, Settings, TrainLength, TrainSettings};
use crate::error::{Error, Result, WeightsError};
use crate::report::Status;
use crate::system::shown::counted;
use crate::train::checkpoint::{Checkpoints, Saved};
use crate::train::progress::Progress;
use crate::train::schedule::LrSchedule;

/// The epochs of a finished training, and those that it is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    from: usize,
    to: usize,
}

/// Where a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// After how many epochs.
    pub epoch: usize,
    /// Whether early stopping ended it.
    pub early: bool,
}

impl Extension {
    /// What the settings add to a run with the settings `saved`; none when they add nothing, or the run has not come to
    /// its end: whatever differs then is a change.
    ///
    /// # Errors
    /// A usage error when the run has replaced the weights of its best epoch by a mean.
    pub fn between(saved: &Settings, settings: &Settings, status: Status) -> Result<Option<Self>> {
        let (TrainLength::Epochs(from), TrainLength::Epochs(to)) = (saved.train.length, settings.train.length) else {
            return Ok(None);
        };
        if status != Status::Done || to <= from {
            return Ok(None);
        }
        let mixed = [(saved.train.soup > 0, "train.soup"), (saved.train.wise_ft.is_some(), "train.wise_ft")];
        if let Some((_, key)) = mixed.into_iter().find(|(mixed, _)| *mixed) {
            return Err(Error::usage_hint(
                format!(
                    "the run cannot go on to {to} epochs: {key} has put a mean of weights in the place of its best epoch"
                ),
                "start anew without --resume (the old run is set aside)",
            ));
        }
        Ok(Some(Self { from, to }))
    }

    /// The settings with the length of before: all that may differ is the length.
    pub fn undone(self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        settings.train.length = TrainLength::Epochs(self.from);
        settings
    }

    /// Makes the last checkpoint one that training goes on from, and says where it ended. A run that stopped early waits
    /// anew; that is saved before its settings are, so that an interruption leaves either run whole.
    ///
    /// # Errors
    /// When there is no such checkpoint, or it cannot be read or written.
    pub fn reopen(checkpoints: &Checkpoints) -> Result<Ended> {
        let Some(Saved { params: saved, optimizer, state: mut progress }) = checkpoints.load::<Progress>("last")?
        else {
            let reason = "the run has no last checkpoint to go on from";
            return Err(WeightsError::invalid(checkpoints.path("last"), reason).into());
        };
        let ended = Ended { epoch: progress.epoch, early: progress.stopped_early };
        if ended.early {
            progress.wait_anew();
            let params = Params::from_iter(saved).train_where(|_| true)?;
            checkpoints.save("last", progress.step, &params, optimizer.as_ref(), &progress)?;
        }
        Ok(ended)
    }

    /// What the schedule makes of it after a training that `ended` so.
    pub fn sentence(self, train: &TrainSettings, images: usize, ended: Ended) -> String {
        let (Self { from, to }, Ended { epoch, early }) = (self, ended);
        let begin = if early {
            format!(
                "the run that stopped early after epoch {epoch} of {from} goes on to {to}, with its patience renewed"
            )
        } else {
            format!("the finished run of {} goes on to {to}", counted(from, "epoch"))
        };
        let steps = images.div_ceil(train.batch_size);
        let curve = |epochs: usize| LrSchedule::new(train.warmup, epochs * steps, train.schedule);
        let (before, after) = (curve(from), curve(to));
        let same = train.schedule == Schedule::Constant && before.warmup == after.warmup;
        if same && !early {
            return format!(
                "{begin} at the same learning rate: bit for bit the run that was given {to} from the start"
            );
        }
        let now = 100.0 * after.factor(epoch * steps);
        let shape = match train.schedule {
            Schedule::Cosine => format!("where the cosine of {to} epochs is after {epoch}, at {now:.0} % of the peak"),
            Schedule::Constant if same => "at the same learning rate".into(),
            Schedule::Constant => {
                format!("at {now:.0} % of the peak; its warm-up was a share of {}", counted(from, "epoch"))
            }
        };
        format!("{begin}, {shape}: not bit for bit the run that was given {to} from the start")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::settings;

    #[test]
    fn only_more_epochs_of_a_finished_run_extend_it() {
        let of = |from: &[&str], to: &[&str], status| Extension::between(&settings(from), &settings(to), status);
        let extended = of(&["train.epochs=2"], &["train.epochs=3"], Status::Done).unwrap().unwrap();
        assert_eq!(extended, Extension { from: 2, to: 3 });
        assert_eq!(extended.undone(&settings(&["train.epochs=3"])), settings(&["train.epochs=2"]));
        for (from, to, status) in [
            ("train.epochs=2", "train.epochs=3", Status::Stopped),
            ("train.epochs=3", "train.epochs=2", Status::Done),
            ("train.epochs=2", "train.epochs=2", Status::Done),
            ("train.steps=2", "train.steps=9", Status::Done),
        ] {
            assert_eq!(of(&[from], &[to], status).unwrap(), None, "{from} {to}");
        }
        let mixed = of(&["train.epochs=2", "train.soup=2"], &["train.epochs=3", "train.soup=2"], Status::Done);
        assert!(mixed.unwrap_err().to_string().contains("train.soup"));
    }

    #[test]
    fn the_rule_is_that_of_the_schedule() {
        let extension = Extension { from: 10, to: 20 };
        let after =
            |epoch, early, sets: &[&str]| extension.sentence(&settings(sets).train, 100, Ended { epoch, early });
        let sentence = |sets: &[&str]| after(10, false, sets);
        let early = |sets: &[&str]| after(5, true, sets);
        assert!(
            early(&["train.warmup=0"])
                .contains("after epoch 5 of 10 goes on to 20, with its patience renewed, where the cosine")
        );
        assert!(early(&["train.warmup=0"]).contains("after 5, at 85 % of the peak"));
        assert!(
            early(&["train.schedule=constant", "train.warmup=5"])
                .contains("at the same learning rate: not bit for bit")
        );
        assert!(
            sentence(&["train.schedule=constant", "train.warmup=5"])
                .ends_with("bit for bit the run that was given 20 from the start")
        );
        assert!(sentence(&["train.schedule=constant"]).contains("at 100 % of the peak; its warm-up was a share"));
        assert!(
            sentence(&["train.warmup=0"]).contains("where the cosine of 20 epochs is after 10, at 50 % of the peak")
        );
    }
}
