//! A head that starts from texts: where it stands before training, and the mean with that start after it.

use super::Training;
use crate::config::{Settings, WiseFt};
use crate::error::{Error, Result};
use crate::report::{Console, percent, plots};
use crate::train::epoch::validate;
use crate::train::progress::Progress;
use crate::train::soup::ValScore;
use crate::train::swap::copies;
use crate::train::wise_ft::Line;

/// The best weights of training, as long as a mean with those before it is under way.
pub(super) const FINETUNED: &str = "finetuned";

/// Refuses, before training, to choose something on no validation images after it.
pub(super) fn check_wise_ft(settings: &Settings, val: usize) -> Result<()> {
    if settings.train.wise_ft == Some(WiseFt::Chosen) && val == 0 {
        return Err(Error::usage_hint(
            "train.wise_ft = true chooses the share of the fine-tuned weights on validation images, and there are none",
            "give the share, such as train.wise_ft = 0.5, or validation images",
        ));
    }
    Ok(())
}

impl Training {
    /// A head from texts before training: says how well it does, ties it to where it is, and keeps the parameters when
    /// they are wanted after training. They are the same ones when the run is resumed, so nothing of this is saved.
    pub(super) fn hold_to_texts(&mut self, console: &Console, resume: bool) -> Result<()> {
        let Some(texts) = &self.texts else { return Ok(()) };
        let settings = &self.session.settings.train;
        let anchor = texts.anchor(settings.head_pull, &self.trainer, || self.pretrained_features(console))?;
        self.trainer.hold(anchor);
        if settings.wise_ft.is_some() {
            self.start = Some(copies(&self.trainer.params)?);
        }
        if !resume && let Some((_, accuracy)) = validate(&self.feed, &self.trainer)? {
            console.info(format!("head      from texts: {} on validation images before training", percent(accuracy)));
        }
        Ok(())
    }

    /// Puts the mean of the weights before and after training in the place of the best, if it is wanted.
    pub(super) fn mix_with_start(&mut self, console: &Console) -> Result<()> {
        let (Some(wise_ft), Some(start)) = (self.session.settings.train.wise_ft, &self.start) else { return Ok(()) };
        // The weights after training stay apart until the run is done: a mean of the mean would be another model.
        let tuned = match self.checkpoints.load::<Progress>(FINETUNED)? {
            Some(tuned) => tuned,
            None => match self.checkpoints.load::<Progress>("best")? {
                Some(best) => {
                    self.checkpoints.save(FINETUNED, best.state.step, &self.trainer.params, None, &best.state)?;
                    best
                }
                None => return Ok(()),
            },
        };
        let params = &self.trainer.params;
        let mut score = || Ok(validate(&self.feed, &self.trainer)?.map(|(loss, accuracy)| ValScore { loss, accuracy }));
        let line = Line { start, end: &tuned.params };
        let record = line.settle(params, wise_ft, &self.session.settings.early_stop, &mut score)?;
        self.checkpoints.save("best", tuned.state.step, params, None, &tuned.state)?;
        console.info(format!("wise-ft   {}", record.sentence()));
        if !record.curve.is_empty() {
            plots::save_wise_ft(&self.run.path("plots/wise-ft"), &self.title(), &record)?;
        }
        self.record.wise_ft = Some(record);
        Ok(())
    }
}
