//! Bootstrap intervals of numbers that depend on the whole ranking.

use super::Estimate;
use super::choose::OVERKILLS;
use crate::metrics::interval::{RESAMPLES, percentiles};
use crate::metrics::ranking::{RankCurve, Ranking};
use crate::rng::{Purpose, Stream};

/// AUROC, average precision, overkill without escapes, then recall at each of [`OVERKILLS`].
const NUMBERS: usize = 3 + OVERKILLS.len();

fn numbers(curve: &RankCurve) -> [Option<f64>; NUMBERS] {
    let [a, b, c] = OVERKILLS.map(|overkill| curve.recall_within(overkill));
    [curve.auroc(), curve.average_precision(), curve.share_with_all(), a, b, c]
}

/// The numbers of a ranking with their percentile intervals over 2000 resamples of whole units (groups, or images that
/// have none), each as often as it was drawn. `unit[i]` is the unit of image i. The seed is fixed: the same scores always
/// get the same intervals.
pub(super) fn estimates(scores: &[f64], defect: &[bool], unit: &[usize]) -> [Estimate; NUMBERS] {
    let Some(ranking) = Ranking::new(scores) else { return [Estimate::default(); NUMBERS] };
    let values = numbers(&ranking.curve(defect, |_| 1));
    let units = unit.iter().max().map_or(0, |last| last + 1);
    let mut drawn: [Vec<f64>; NUMBERS] = Default::default();
    if units > 1 && values.iter().any(Option::is_some) {
        for resample in 0..RESAMPLES {
            let mut stream = Stream::new(0, Purpose::RankingBootstrap, &[resample as u64]);
            let mut times = vec![0u64; units];
            (0..units).for_each(|_| times[stream.below(units as u64) as usize] += 1);
            let found = numbers(&ranking.curve(defect, |image| times[unit[image]]));
            drawn.iter_mut().zip(found).for_each(|(drawn, found)| drawn.extend(found));
        }
    }
    let mut drawn = drawn.into_iter();
    values.map(|value| {
        let interval = drawn.next().and_then(|drawn| percentiles(drawn, value?));
        Estimate { value, ci95: interval.filter(|[low, high]| low < high) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_widens_with_groups_and_is_honest_about_certainty() {
        let scores: Vec<f64> = (0..120).map(|i| f64::from(i * 37 % 101) / 101.0 + f64::from(i % 3) * 0.1).collect();
        let defect: Vec<bool> = (0..120).map(|i| i % 3 == 2).collect();
        let own: Vec<usize> = (0..120).collect();
        let rolls: Vec<usize> = (0..120).map(|i| i / 20).collect();
        let alone = estimates(&scores, &defect, &own);
        assert_eq!(alone, estimates(&scores, &defect, &own));
        for estimate in alone {
            let [low, high] = estimate.ci95.unwrap();
            assert!(low <= estimate.value.unwrap() && estimate.value.unwrap() <= high, "{estimate:?}");
        }
        // Hanley and McNeil's standard error of this AUROC with 40 defects of 120 parts is about 0.053.
        let [low, high] = alone[0].ci95.unwrap();
        assert!(((high - low) / (2.0 * 1.96) - 0.053).abs() < 0.008, "{low} {high}");
        assert!(estimates(&scores, &defect, &rolls)[0].ci95.is_some());
        assert_eq!(estimates(&scores, &defect, &[0; 120])[0].ci95, None);
        // Parted without a mistake, every resample is too: that is no proof of anything.
        let parted: Vec<f64> = defect.iter().map(|&defect| f64::from(u8::from(defect))).collect();
        let sure = estimates(&parted, &defect, &own)[0];
        assert_eq!((sure.value, sure.ci95), (Some(1.0), None));
    }

    #[test]
    fn one_side_is_undefined() {
        assert_eq!(estimates(&[0.1, 0.2], &[true, true], &[0, 1]), [Estimate::default(); NUMBERS]);
        assert_eq!(estimates(&[0.1, f64::NAN], &[true, false], &[0, 1]), [Estimate::default(); NUMBERS]);
        assert_eq!(estimates(&[], &[], &[]), [Estimate::default(); NUMBERS]);
    }
}
