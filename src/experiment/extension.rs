//! A finished training that is given more epochs: when that can be, and what it comes to.

use crate::config::{Schedule, Settings, TrainLength, TrainSettings};
use crate::error::{Error, Result};
use crate::report::Status;
use crate::train::schedule::LrSchedule;

/// The epochs of a finished training, and those that it is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    from: usize,
    to: usize,
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

    /// What the schedule makes of it.
    pub fn sentence(self, train: &TrainSettings, images: usize) -> String {
        let Self { from, to } = self;
        let begin = format!("the finished run of {from} epochs goes on to {to}");
        let steps = images.div_ceil(train.batch_size);
        let curve = |epochs: usize| LrSchedule::new(train.warmup, epochs * steps, train.schedule);
        let (before, after) = (curve(from), curve(to));
        if train.schedule == Schedule::Constant && before.warmup == after.warmup {
            return format!(
                "{begin} at the same learning rate: to the bits of a run that was given {to} from the start"
            );
        }
        let now = 100.0 * after.factor(from * steps);
        let shape = match train.schedule {
            Schedule::Cosine => format!("where the cosine of {to} epochs is after {from}, at {now:.0} % of the peak"),
            Schedule::Constant => format!("at {now:.0} % of the peak; its warm-up was a share of {from} epochs"),
        };
        format!("{begin}, {shape}: other bits than a run that was given {to} from the start")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn settings(sets: &[&str]) -> Settings {
        let sets: Vec<String> = ["data.root=/d"].iter().chain(sets).map(|&set| set.to_owned()).collect();
        config::load(None, &sets).unwrap()
    }

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
        let sentence = |sets: &[&str]| Extension { from: 10, to: 20 }.sentence(&settings(sets).train, 100);
        assert!(
            sentence(&["train.schedule=constant", "train.warmup=5"])
                .ends_with("to the bits of a run that was given 20 from the start")
        );
        assert!(sentence(&["train.schedule=constant"]).contains("at 100 % of the peak; its warm-up was a share"));
        assert!(
            sentence(&["train.warmup=0"]).contains("where the cosine of 20 epochs is after 10, at 50 % of the peak")
        );
    }
}
