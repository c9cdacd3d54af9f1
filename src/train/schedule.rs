//! The learning rate over the steps: linear warm-up, then half a cosine or nothing.

use crate::config::Schedule;

/// A learning rate curve as a factor of the peak.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LrSchedule {
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// All steps.
    pub total: usize,
    shape: AfterWarmup,
}

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
enum AfterWarmup {
    /// As in training.
    Decay(Schedule),
    /// By the same factor every step, from one multiple of the peak to another.
    Sweep(f64, f64),
}

impl LrSchedule {
    /// `warmup` below 1 is a share of `total`, from 1 a number of steps; it never takes more than all steps.
    pub fn new(warmup: f64, total: usize, decay: Schedule) -> Self {
        let steps = if warmup < 1.0 { (warmup * total as f64).round() } else { warmup };
        Self { warmup: (steps as usize).min(total), total, shape: AfterWarmup::Decay(decay) }
    }

    /// From the multiple `low` to `high`, rising by the same factor every step.
    pub fn sweep(total: usize, (low, high): (f64, f64)) -> Self {
        Self { warmup: 0, total, shape: AfterWarmup::Sweep(low, high) }
    }

    /// The factor for the step with this index, from 0.
    ///
    /// The warm-up climbs from 1/w at step 0 to 1 at step w - 1, so that no step is wasted at a rate of 0.
    pub fn factor(&self, step: usize) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        match self.shape {
            AfterWarmup::Sweep(low, high) => {
                low * (high / low).powf(step as f64 / self.total.saturating_sub(1).max(1) as f64)
            }
            AfterWarmup::Decay(Schedule::Constant) => 1.0,
            AfterWarmup::Decay(Schedule::Cosine) => {
                let span = (self.total - self.warmup).max(1) as f64;
                let progress = ((step - self.warmup) as f64 / span).min(1.0);
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reaches_its_landmarks() {
        let schedule = LrSchedule::new(0.1, 100, Schedule::Cosine);
        assert_eq!(schedule.warmup, 10);
        assert!((schedule.factor(0) - 0.1).abs() < 1e-12);
        assert!((schedule.factor(9) - 1.0).abs() < 1e-12);
        assert!((schedule.factor(10) - 1.0).abs() < 1e-12);
        assert!((schedule.factor(55) - 0.5).abs() < 1e-12);
        assert!(schedule.factor(99) < 1e-3 && schedule.factor(99) > 0.0);
        assert_eq!(LrSchedule::new(5.0, 100, Schedule::Constant).factor(70), 1.0);
        let sweep = LrSchedule::sweep(3, (0.01, 100.0));
        let factors = [0, 1, 2].map(|step| sweep.factor(step));
        assert!(factors.iter().zip([0.01, 1.0, 100.0]).all(|(a, b)| (a / b - 1.0f64).abs() < 1e-12));
    }

    proptest! {
        #[test]
        fn stays_in_range_and_falls_after_the_warm_up(warmup in 0.0f64..20.0, total in 1usize..500) {
            let schedule = LrSchedule::new(warmup, total, Schedule::Cosine);
            let factors: Vec<f64> = (0..total).map(|step| schedule.factor(step)).collect();
            prop_assert!(factors.iter().all(|factor| (0.0..=1.0).contains(factor)));
            prop_assert!(factors[schedule.warmup.min(total)..].windows(2).all(|pair| pair[1] <= pair[0]));
            prop_assert!(factors[..schedule.warmup.min(total)].windows(2).all(|pair| pair[1] >= pair[0]));
        }
    }
}
