//! Confidence intervals of an accuracy and other shares, 95 %, two-sided.

use std::collections::BTreeMap;

use statrs::distribution::{Beta, ContinuousCDF};

use crate::rng::{Purpose, Stream};

/// The probability left out on each side.
const TAIL: f64 = 0.025;

/// Bootstrap resamples.
pub(super) const RESAMPLES: usize = 2000;

/// The interval of an accuracy: exact for independent samples, by bootstrap over groups where samples share one.
///
/// `right` tells for each sample whether it was answered right; `groups` names each sample's group (none = a group
/// of its own) or is empty. None when all samples are of one group, which says nothing about another group.
pub fn accuracy_interval(right: &[bool], groups: &[Option<&str>]) -> Option<[f64; 2]> {
    let units = counts_by_unit(right, &units(right.len(), groups));
    let correct = right.iter().filter(|&&r| r).count() as u64;
    if units.len() == right.len() {
        Some(clopper_pearson(correct, right.len() as u64))
    } else {
        bootstrap_groups(&units)
    }
}

/// The interval of Clopper and Pearson (1934) for `successes` of `trials`: it covers at least 95 %, at any size.
/// Without trials it is all of [0, 1].
pub fn clopper_pearson(successes: u64, trials: u64) -> [f64; 2] {
    let successes = successes.min(trials);
    let (s, n) = (successes as f64, trials as f64);
    let low = if successes == 0 { 0.0 } else { beta_quantile(TAIL, s, n - s + 1.0).unwrap_or(0.0) };
    let high = if successes == trials { 1.0 } else { beta_quantile(1.0 - TAIL, s + 1.0, n - s).unwrap_or(1.0) };
    [low, high]
}

fn beta_quantile(p: f64, a: f64, b: f64) -> Option<f64> {
    Beta::new(a, b).ok().map(|beta| beta.inverse_cdf(p))
}

/// The percentile interval over 2000 resamples of whole groups, each (right answers, samples).
///
/// When all answers are right, or all wrong, every resample is the same and says nothing of the spread: the exact
/// interval with groups as trials takes its place. None for fewer than two groups.
pub fn bootstrap_groups(groups: &[(u64, u64)]) -> Option<[f64; 2]> {
    if groups.len() < 2 {
        return None;
    }
    let (right, samples) = sum(groups.iter());
    if right == 0 || right == samples {
        let trials = groups.len() as u64;
        return Some(clopper_pearson(if right == 0 { 0 } else { trials }, trials));
    }
    // The seed is fixed: the same predictions always get the same interval.
    let share = |resample: usize| {
        let mut stream = Stream::new(0, Purpose::Bootstrap, &[resample as u64]);
        let (right, samples) = sum((0..groups.len()).map(|_| &groups[stream.below(groups.len() as u64) as usize]));
        right as f64 / samples as f64
    };
    percentiles((0..RESAMPLES).map(share).collect(), right as f64 / samples as f64)
}

/// The interval of the mean of shares, each with its own interval, as Zou and Donner (2008) put them together: the distances
/// to the bounds add as squares where the shares were measured independently, as they are where they are not. None without
/// shares.
pub fn mean_interval(shares: &[(f64, [f64; 2])], independent: bool) -> Option<[f64; 2]> {
    let n = shares.len() as f64;
    let mean = shares.iter().map(|(share, _)| share).sum::<f64>() / n;
    let distance = |side: usize| {
        let distances = shares.iter().map(|(share, bounds)| (bounds[side] - share).abs() / n);
        if independent { distances.map(|d| d * d).sum::<f64>().sqrt() } else { distances.sum() }
    };
    (!shares.is_empty()).then(|| [(mean - distance(0)).max(0.0), (mean + distance(1)).min(1.0)])
}

/// The percentile interval of resampled values, widened to contain the value of the sample itself; none without values.
pub(super) fn percentiles(mut resampled: Vec<f64>, value: f64) -> Option<[f64; 2]> {
    resampled.sort_by(f64::total_cmp);
    let bounds = (!resampled.is_empty()).then(|| [quantile(&resampled, TAIL), quantile(&resampled, 1.0 - TAIL)]);
    bounds.map(|[low, high]| [low.min(value), high.max(value)])
}

pub(super) fn sum<'a>(groups: impl Iterator<Item = &'a (u64, u64)>) -> (u64, u64) {
    groups.fold((0, 0), |total, group| (total.0 + group.0, total.1 + group.1))
}

/// The quantile of sorted values, interpolated linearly between neighbours.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let below = sorted[at as usize];
    let above = sorted[(at as usize + 1).min(sorted.len() - 1)];
    below + (at - at.floor()) * (above - below)
}

/// The number of each sample's group, from 0 in the order in which groups first appear; a sample without one is a group of
/// its own. `groups` may be empty.
pub(super) fn units(samples: usize, groups: &[Option<&str>]) -> Vec<usize> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut fresh = 0;
    let mut unit = |i: usize| {
        let number = groups.get(i).copied().flatten().map_or(fresh, |name| *numbers.entry(name).or_insert(fresh));
        fresh = fresh.max(number + 1);
        number
    };
    (0..samples).map(&mut unit).collect()
}

/// (samples it happened to, samples) of each group that has samples.
pub(super) fn counts_by_unit(happened: &[bool], unit: &[usize]) -> Vec<(u64, u64)> {
    let mut counts = vec![(0, 0); unit.iter().max().map_or(0, |last| last + 1)];
    for (&happened, &unit) in happened.iter().zip(unit) {
        counts[unit].0 += u64::from(happened);
        counts[unit].1 += 1;
    }
    counts.retain(|&(_, samples)| samples > 0);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_right_has_the_closed_form() {
        for n in [1, 5, 90, 10_000] {
            let [low, high] = clopper_pearson(n, n);
            assert!((low - TAIL.powf(1.0 / n as f64)).abs() < 1e-9, "{n}: {low}");
            assert_eq!(high, 1.0);
        }
        assert_eq!(clopper_pearson(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn groups_widen_the_interval() {
        // 40 groups of 10 images, each all right or all wrong: as good as 40 samples, not 400.
        let groups: Vec<String> = (0..400).map(|i| format!("roll {}", i / 10)).collect();
        let groups: Vec<Option<&str>> = groups.iter().map(|g| Some(g.as_str())).collect();
        let right: Vec<bool> = (0..400).map(|i| i / 10 % 4 != 0).collect();
        let [low, high] = accuracy_interval(&right, &groups).unwrap();
        // The 2.5 % and 97.5 % quantiles of a binomial of 40 trials at 0.75 are 24 and 35.
        assert!((low - 0.600).abs() < 0.026 && (high - 0.875).abs() < 0.026, "{low} {high}");
        let [exact_low, exact_high] = accuracy_interval(&right, &[]).unwrap();
        assert!(low < exact_low && exact_high < high);
        assert_eq!(accuracy_interval(&right, &groups), Some([low, high]));
    }

    #[test]
    fn degenerate_groups() {
        let one = [Some("a"); 3];
        assert_eq!(accuracy_interval(&[true, false, true], &one), None);
        let two = [Some("a"), Some("a"), Some("b")];
        assert_eq!(accuracy_interval(&[true; 3], &two), Some(clopper_pearson(2, 2)));
        let own = [Some("a"), None, None];
        assert_eq!(accuracy_interval(&[true, false, true], &own), Some(clopper_pearson(2, 3)));
    }

    #[test]
    fn a_mean_of_recalls_is_as_sure_as_its_rarest_class_allows() {
        // 9 of 9 defects and 291 of 291 good parts: the nine decide. By hand: half the square root of 0.3363² + 0.0126².
        let recall = |right, of| (right as f64 / of as f64, clopper_pearson(right, of));
        let [low, high] = mean_interval(&[recall(9, 9), recall(291, 291)], true).unwrap();
        assert!((low - 0.8317).abs() < 1e-3 && high == 1.0, "{low} {high}");
        // As wide as that of all images where two classes are alike (normal approximation: 0.8 ± 0.0554).
        let [low, high] = mean_interval(&[recall(80, 100), recall(80, 100)], true).unwrap();
        assert!((low - 0.738).abs() < 3e-3 && (high - 0.851).abs() < 3e-3, "{low} {high}");
        let [wider_low, wider_high] = mean_interval(&[recall(80, 100), recall(80, 100)], false).unwrap();
        assert!(wider_low < low && high < wider_high);
        assert_eq!(mean_interval(&[], true), None);
    }

    proptest! {
        #[test]
        fn contains_the_accuracy(n in 1..3000_u64, share in 0.0..=1.0_f64) {
            let successes = (share * n as f64) as u64;
            let [low, high] = clopper_pearson(successes, n);
            let accuracy = successes as f64 / n as f64;
            prop_assert!(0.0 <= low && low <= accuracy && accuracy <= high && high <= 1.0, "{low} {accuracy} {high}");
        }

        #[test]
        fn grouped_contains_the_accuracy(groups in prop::collection::vec((0..9_u64, 9..12_u64), 2..12)) {
            let (right, samples) = sum(groups.iter());
            let [low, high] = bootstrap_groups(&groups).unwrap();
            let accuracy = right as f64 / samples as f64;
            prop_assert!(0.0 <= low && low <= accuracy && accuracy <= high && high <= 1.0, "{low} {accuracy} {high}");
        }
    }
}
