//! Whether a checkpoint can be one of the training that goes on from it. Its sums say only that it is as somebody wrote it.

use super::fit::{Fit, MOST_SKIPPED};
use super::progress::Progress;
use super::safeguard::Safeguard;
use crate::config::Precision;
use crate::data::Split;

impl Fit<'_> {
    /// Refuses numbers that no training by these settings on these images has reached, before anything is computed or
    /// allocated from them.
    ///
    /// # Errors
    /// A sentence that says which number cannot be.
    pub fn check(&self, progress: &Progress) -> Result<(), String> {
        let Progress { epoch, batch, step, updates, running, skipped, history, early_stop, validation, .. } = progress;
        let (total, each) = (self.total_steps(), self.steps_per_epoch());
        let begun = epoch.checked_mul(each).and_then(|steps| steps.checked_add(*batch));
        // The last epoch may be cut short by the number of steps.
        let whole =
            begun == Some(*step) || (*batch == 0 && *step == total && begun.is_some_and(|steps| steps < total + each));
        let images = self.source.len(Split::Val);
        if *step > total || *batch > each || !whole {
            Err(format!(
                "step {step} after {epoch} epochs and {batch} batches, where {total} steps of {each} an epoch are taken"
            ))
        } else if updates > step || *skipped >= MOST_SKIPPED {
            Err(format!("{updates} updates in {step} steps, {skipped} skipped in a row"))
        } else if running.seen > batch * self.settings.batch_size || running.correct > running.seen {
            Err(format!("{} images right of {} in {batch} batches", running.correct, running.seen))
        } else if !history.iter().map(|record| record.epoch).eq(1..=*epoch) {
            Err(format!("records of {} epochs after {epoch}", history.len()))
        } else if early_stop.best_epoch().is_some_and(|best| !(1..=*epoch).contains(&best)) {
            Err(format!("a best epoch that is none of {epoch}"))
        } else if let Some(scores) = validation.all().find(|scores| !scores.are_of(images)) {
            Err(format!("scores of {} validation images, where there are {images}", scores.right.len()))
        } else {
            // More parts than images may have been asked for.
            let most = self.settings.batch_size.max(self.settings.accumulate.unwrap_or(1));
            progress.safeguard.check(most, self.trainer.computation.precision)
        }
    }
}

impl Safeguard {
    /// Refuses a state that training cannot have led to.
    fn check(&self, most_parts: usize, precision: Precision) -> Result<(), String> {
        let (parts, scale) = (self.micro_batches, self.loss_scale);
        if !(1..=most_parts).contains(&parts) {
            return Err(format!("{parts} micro-batches, where {most_parts} are possible"));
        }
        // Halved and doubled only: a power of two.
        let reachable =
            if precision == Precision::F16 { (1.0..=Self::LARGEST_SCALE).contains(&scale) } else { scale == 1.0 };
        if reachable && scale.log2().fract() == 0.0 { Ok(()) } else { Err(format!("a loss scale of {scale:e}")) }
    }
}
