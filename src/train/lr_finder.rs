//! The learning-rate range test (Smith 2017): the rate rises by the same factor every step, and the loss tells where
//! training is fast and where it breaks.

use super::fit::{Fit, Observer};
use super::schedule::LrSchedule;
use super::state::TrainState;
use crate::data::upload::ahead;
use crate::error::Result;
use serde::Serialize;

/// Steps of the test.
const STEPS: usize = 100;
/// From which to which multiple of the rate of the settings it rises.
const FACTORS: (f64, f64) = (1e-3, 1e3);
/// Weight of the past in the smoothed loss, as in fastai.
const SMOOTHING: f64 = 0.9;
/// The test ends when the smoothed loss exceeds its smallest value by this factor.
const DIVERGED: f64 = 4.0;
/// The suggested rate is that of the smallest loss divided by this: there the loss still falls fast, and a step too
/// large is some way off.
const CAUTION: f64 = 10.0;

/// One step of the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SweepPoint {
    /// Learning rate of the backbone.
    pub lr: f64,
    /// The learning rate of the head, which keeps its ratio to the backbone's.
    pub head_lr: f64,
    /// Loss of the step's batch.
    pub loss: f64,
    /// Exponential moving average of the losses, free of its bias towards 0.
    pub smoothed: f64,
}

/// What the test has shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// The steps, up to where the loss broke away.
    pub points: Vec<SweepPoint>,
    /// The suggested point; none when no rate lowered the loss.
    pub suggestion: Option<SweepPoint>,
}

impl Sweep {
    /// From rates (backbone, head) and losses of the steps taken.
    pub fn new(steps: &[(f64, f64, f64)]) -> Self {
        let (mut average, mut weight) = (0.0, 1.0);
        let points: Vec<SweepPoint> = steps
            .iter()
            .map(|&(lr, head_lr, loss)| {
                average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
                weight *= SMOOTHING;
                SweepPoint { lr, head_lr, loss, smoothed: average / (1.0 - weight) }
            })
            .collect();
        let lowest = points.iter().min_by(|a, b| a.smoothed.total_cmp(&b.smoothed)).copied();
        let suggestion = lowest.filter(|lowest| points.first().is_some_and(|first| lowest.smoothed < first.smoothed));
        let careful = |lowest: SweepPoint| {
            let wanted = lowest.lr / CAUTION;
            points.iter().copied().min_by(|a, b| distance(a.lr, wanted).total_cmp(&distance(b.lr, wanted)))
        };
        Self { suggestion: suggestion.and_then(careful), points }
    }

    /// Whether the smoothed loss has broken away.
    fn diverged(&self) -> bool {
        let smallest = self.points.iter().map(|point| point.smoothed).fold(f64::INFINITY, f64::min);
        self.points.last().is_some_and(|last| last.smoothed > DIVERGED * smallest)
    }
}

fn distance(lr: f64, other: f64) -> f64 {
    (lr / other).ln().abs()
}

impl Fit<'_> {
    /// Runs the test from `state`; none when a signal ended it. The parameters are spent afterwards.
    ///
    /// # Errors
    /// As training itself.
    pub fn find_lr(&self, state: &mut TrainState, observer: &mut dyn Observer) -> Result<Option<Sweep>> {
        let schedule = LrSchedule::sweep(STEPS, FACTORS);
        let (phase, row) = (self.trainer.whole(), self.trainer.model.input_shape());
        let mut steps = Vec::with_capacity(STEPS);
        for epoch in 0.. {
            let batches = self.mixed(self.source.train(epoch, 0, self.destination())?, state.progress.step);
            let over = ahead((self.trainer.model.device(), &row), batches, |batches| -> Result<bool> {
                for sent in batches {
                    let sent = sent?;
                    let factor = schedule.factor(state.progress.step);
                    if !self.train_step(&phase, &sent, state, schedule, observer)? {
                        return Ok(true);
                    }
                    let running = std::mem::take(&mut state.progress.running);
                    if running.seen == 0 {
                        return Ok(true); // not finite
                    }
                    let loss = running.loss / running.seen as f64;
                    observer.step(epoch + 1, state.progress.step, sent.batch.labels.len(), loss);
                    steps.push((self.settings.lr * factor, self.settings.head_lr * factor, loss));
                    let over = state.progress.step == STEPS || Sweep::new(&steps).diverged();
                    if over || self.stop.received().is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            })?;
            if over {
                break;
            }
        }
        Ok(self.stop.received().is_none().then(|| Sweep::new(&steps)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss that falls from 1 to 0.2 around a rate of 1e-3 and breaks away above 1e-1.
    fn valley(lr: f64) -> f64 {
        1.0 - 0.8 / (1.0 + 1e-3 / lr) + (lr / 0.1).powi(2)
    }

    fn steps(loss: impl Fn(f64) -> f64) -> Vec<(f64, f64, f64)> {
        let rate = |i: usize| 1e-6 * 10f64.powf(6.0 * i as f64 / 99.0);
        (0..100).map(|i| (rate(i), 2.0 * rate(i), loss(rate(i)))).collect()
    }

    #[test]
    fn suggests_a_tenth_of_the_rate_of_the_smallest_loss() {
        let sweep = Sweep::new(&steps(valley));
        let lowest = sweep.points.iter().min_by(|a, b| a.smoothed.total_cmp(&b.smoothed)).unwrap();
        let suggestion = sweep.suggestion.unwrap();
        assert!((suggestion.lr / lowest.lr * 10.0).ln().abs() < 0.1, "{suggestion:?} of {lowest:?}");
        assert!((1e-3..1e-2).contains(&suggestion.lr) && suggestion.head_lr == 2.0 * suggestion.lr);
        assert!(sweep.diverged());
    }

    #[test]
    fn smoothing_has_no_bias_towards_zero() {
        let sweep = Sweep::new(&steps(|_| 0.7));
        assert!(sweep.points.iter().all(|point| (point.smoothed - 0.7).abs() < 1e-12));
        assert_eq!(Sweep::new(&steps(|lr| 0.5 + lr)).suggestion, None);
        assert!(!sweep.diverged() && Sweep::new(&[]).suggestion.is_none());
    }
}
