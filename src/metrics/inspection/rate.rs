//! Rates with intervals that say how they were made, at 95 %.

use crate::metrics::interval::{bootstrap_groups, clopper_pearson, counts_by_unit, sum};
use serde::{Deserialize, Serialize};

/// The probability that the one-sided bound leaves out.
const ONE_TAIL: f64 = 0.05;

/// A share of some images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Images it happened to.
    pub count: u64,
    /// Images it could have happened to.
    pub of: u64,
    /// Their quotient; undefined without images.
    pub rate: Option<f64>,
    /// Its 95 % interval; undefined without images, and when all are of one group.
    pub ci95: Option<[f64; 2]>,
    /// How the interval was made.
    pub interval: Option<Interval>,
}

/// How the interval of a rate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// Clopper and Pearson, two-sided.
    Exact,
    /// Clopper and Pearson when it happened to none, or to all: the whole 5 % lie on the side that is open. After no
    /// escape among n parts the bound is 1 − 0.05^(1/n).
    ExactOneSided,
    /// Resampled groups of images.
    GroupBootstrap,
    /// As `ExactOneSided`, with groups as trials: images of one group say little about another.
    ExactOneSidedGroups,
}

impl Rate {
    /// The rate of `happened` among the images where `applies`. `unit[i]` is the group of image i; images without a group
    /// have units of their own.
    pub(super) fn new(happened: &[bool], applies: &[bool], unit: &[usize]) -> Self {
        let chosen = |values: &[bool]| values.iter().zip(applies).filter(|(_, a)| **a).map(|(v, _)| *v).collect();
        let happened: Vec<bool> = chosen(happened);
        let unit: Vec<usize> = unit.iter().zip(applies).filter(|(_, a)| **a).map(|(u, _)| *u).collect();
        let counts = counts_by_unit(&happened, &unit);
        let (count, of) = sum(counts.iter());
        let grouped = counts.len() < happened.len();
        let found = interval(&counts, (count, of), grouped);
        Self {
            count,
            of,
            rate: (of > 0).then(|| count as f64 / of as f64),
            ci95: found.map(|(ci95, _)| ci95),
            interval: found.map(|(_, interval)| interval),
        }
    }
}

fn interval(counts: &[(u64, u64)], (count, of): (u64, u64), grouped: bool) -> Option<([f64; 2], Interval)> {
    let trials = counts.len() as u64;
    match (count == 0 || count == of, grouped) {
        _ if of == 0 || grouped && trials < 2 => None,
        (false, false) => Some((clopper_pearson(count, of), Interval::Exact)),
        (true, false) => Some((one_sided(count > 0, of), Interval::ExactOneSided)),
        (false, true) => Some((bootstrap_groups(counts)?, Interval::GroupBootstrap)),
        (true, true) => Some((one_sided(count > 0, trials), Interval::ExactOneSidedGroups)),
    }
}

/// The interval after `trials` of which all, or none, came out.
fn one_sided(all: bool, trials: u64) -> [f64; 2] {
    let bound = ONE_TAIL.powf(1.0 / trials as f64);
    if all { [bound, 1.0] } else { [0.0, 1.0 - bound] }
}

/// A metric that is not a plain share, with its bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// Undefined when it is about defects and there are none, or about good parts.
    pub value: Option<f64>,
    /// The 95 % percentile interval; undefined when all resamples agree, which says nothing, or all are of one group.
    pub ci95: Option<[f64; 2]>,
}

impl Estimate {
    /// `rate` times a constant.
    pub(super) fn scaled(rate: &Rate, factor: f64) -> Self {
        Self { value: rate.rate.map(|rate| rate * factor), ci95: rate.ci95.map(|ci| ci.map(|bound| bound * factor)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn none_of_n_has_the_closed_form() {
        let unit: Vec<usize> = (0..59).collect();
        let none = Rate::new(&[false; 59], &[true; 59], &unit);
        assert_eq!((none.count, none.of, none.rate, none.interval), (0, 59, Some(0.0), Some(Interval::ExactOneSided)));
        // The rule of three: 59 parts without an escape show at most 5 %.
        assert!((none.ci95.unwrap()[1] - 0.049_51).abs() < 1e-5, "{none:?}");
        let all = Rate::new(&[true; 59], &[true; 59], &unit);
        assert!((all.ci95.unwrap()[0] - (1.0 - 0.049_51)).abs() < 1e-5, "{all:?}");
        let nothing = Rate::new(&[true; 59], &[false; 59], &unit);
        assert_eq!((nothing.rate, nothing.ci95, nothing.interval), (None, None, None));
    }

    #[test]
    fn groups_count_as_what_they_are() {
        let unit: Vec<usize> = (0..40).map(|i| i / 10).collect();
        let happened: Vec<bool> = (0..40).map(|i| i / 10 == 1).collect();
        let grouped = Rate::new(&happened, &[true; 40], &unit);
        let alone = Rate::new(&happened, &[true; 40], &(0..40).collect::<Vec<_>>());
        assert_eq!((grouped.interval, alone.interval), (Some(Interval::GroupBootstrap), Some(Interval::Exact)));
        let width = |rate: &Rate| rate.ci95.map(|[low, high]| high - low).unwrap();
        assert!(width(&grouped) > width(&alone));
        let none = Rate::new(&[false; 40], &[true; 40], &unit);
        assert_eq!(none.interval, Some(Interval::ExactOneSidedGroups));
        assert!((none.ci95.unwrap()[1] - (1.0 - 0.05f64.powf(0.25))).abs() < 1e-15);
        assert_eq!(Rate::new(&happened, &[true; 40], &[7; 40]).ci95, None);
        // Only the groups that the rate is about count: here each of those has one image.
        let applies: Vec<bool> = (0..40).map(|i| i % 10 == 0).collect();
        assert_eq!(Rate::new(&happened, &applies, &unit).interval, Some(Interval::Exact));
    }

    proptest! {
        #[test]
        fn the_interval_contains_the_rate(
            images in prop::collection::vec((any::<bool>(), any::<bool>(), 0..9usize), 0..40),
            grouped in any::<bool>(),
        ) {
            let happened: Vec<bool> = images.iter().map(|image| image.0).collect();
            let applies: Vec<bool> = images.iter().map(|image| image.1).collect();
            let unit: Vec<usize> = images.iter().enumerate().map(|(i, image)| if grouped { image.2 } else { i }).collect();
            let rate = Rate::new(&happened, &applies, &unit);
            if let (Some(value), Some([low, high])) = (rate.rate, rate.ci95) {
                prop_assert!(0.0 <= low && low <= value && value <= high && high <= 1.0, "{rate:?}");
            }
        }
    }
}
