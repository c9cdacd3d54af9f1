//! Thresholds chosen on validation images.

use super::{Band, Parts, Threshold, ThresholdRule};
use crate::config::{BandGoal, Costs};
use crate::metrics::ranking::{RankCurve, Ranking};

/// The overkill rates at which recall is reported.
pub(super) const OVERKILLS: [f64; 3] = [0.001, 0.005, 0.01];

/// The rules by which a part is called defective from a threshold on, with the thresholds these parts support.
pub(super) fn thresholds(parts: &Parts) -> Vec<Threshold> {
    let ranked = Ranking::new(&parts.scores).map(|ranking| (ranking.curve(&parts.defect, |_| 1), ranking));
    let threshold = |rule: ThresholdRule| {
        let point = |curve: &RankCurve| match rule {
            ThresholdRule::OverkillAtMost { max_overkill } => curve.within(max_overkill),
            ThresholdRule::NoEscapes | ThresholdRule::LargestProbability => curve.leaving(0.0),
        };
        let found = ranked.as_ref().and_then(|(curve, ranking)| Some(ranking.threshold(point(curve)?)));
        Threshold { rule, threshold: found }
    };
    let bounded = OVERKILLS.map(|max_overkill| ThresholdRule::OverkillAtMost { max_overkill });
    std::iter::once(ThresholdRule::NoEscapes).chain(bounded).map(threshold).collect()
}

/// The two thresholds that a goal asks for; none when there is no defect or no good part to choose them on, or a score
/// is not a number. `prevalence` is the share of defects in production, if it is not that of these parts.
pub(super) fn band(parts: &Parts, goal: BandGoal, prevalence: Option<f64>) -> Option<Band> {
    let ranking = Ranking::new(&parts.scores)?;
    let curve = ranking.curve(&parts.defect, |_| 1);
    let (rejected, kept) = match goal {
        BandGoal::Costs(costs) => cheapest(&curve, costs, prevalence)?,
        // Within its limit each side leaves as few parts to a person as it can.
        BandGoal::Limits(limits) => (curve.within(limits.max_overkill)?, curve.leaving(limits.max_escape)?),
    };
    let (reject_from, accept_below) = (ranking.threshold(rejected), ranking.threshold(kept));
    // Limits that one threshold meets leave nothing to review: halfway between the two it meets both with most margin.
    let middle = f64::midpoint(reject_from, accept_below);
    let apart = accept_below <= reject_from;
    Some(if apart { Band { accept_below, reject_from } } else { Band { accept_below: middle, reject_from: middle } })
}

/// The points of the curve above which parts are rejected, and below which they are accepted, at the least expected cost
/// (Chow 1970). Mistakes of the two kinds lie at the two ends, so each end is weighed against reviewing on its own: one
/// walk along the curve finds the best pair. Among equal costs the pair with fewer reviews is taken.
fn cheapest(curve: &RankCurve, costs: Costs, prevalence: Option<f64>) -> Option<(usize, usize)> {
    let (defects, goods) = curve.sides()?;
    let prevalence = prevalence.unwrap_or(defects / (defects + goods));
    let (defect, good) = (prevalence / defects, (1.0 - prevalence) / goods);
    // The expected cost of a look at all above a point, of rejecting them instead, and of accepting all below it instead
    // of looking there (less what does not depend on the point).
    let look = |&(tp, fp): &(u64, u64)| costs.look * (tp as f64 * defect + fp as f64 * good);
    let reject = |point: &(u64, u64)| costs.overkill * point.1 as f64 * good - look(point);
    let accept = |point: &(u64, u64)| look(point) - costs.escape * point.0 as f64 * defect;
    let mut best: Option<(f64, usize, usize)> = None;
    let mut rejected = (f64::INFINITY, 0);
    for (index, point) in curve.points().iter().enumerate() {
        if reject(point) <= rejected.0 {
            rejected = (reject(point), index);
        }
        let cost = rejected.0 + accept(point);
        if best.is_none_or(|(least, ..)| cost < least) {
            best = Some((cost, rejected.1, index));
        }
    }
    best.map(|(_, rejected, kept)| (rejected, kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use proptest::prelude::*;

    /// (score in elevenths, whether it is a defect) of each.
    fn of_images(images: &[(u32, bool)]) -> Parts {
        let (scores, defect): (Vec<f64>, Vec<bool>) =
            images.iter().map(|&(score, defect)| (f64::from(score) / 11.0, defect)).unzip();
        parts(&scores, &defect)
    }

    fn parts(scores: &[f64], defect: &[bool]) -> Parts {
        Parts { scores: scores.to_vec(), called: vec![false; scores.len()], defect: defect.to_vec() }
    }

    fn cost(parts: &Parts, band: Band, costs: Costs, prevalence: f64) -> f64 {
        let side = |defect: bool, accepted: f64, rejected: f64| {
            let scores: Vec<f64> =
                parts.scores.iter().zip(&parts.defect).filter(|(_, d)| **d == defect).map(|(s, _)| *s).collect();
            let one = |score: &f64| {
                if *score < band.accept_below {
                    accepted
                } else if *score >= band.reject_from {
                    rejected
                } else {
                    costs.look
                }
            };
            scores.iter().map(one).sum::<f64>() / scores.len() as f64
        };
        prevalence * side(true, costs.escape, 0.0) + (1.0 - prevalence) * side(false, 0.0, costs.overkill)
    }

    proptest! {
        #[test]
        fn no_other_band_is_cheaper(
            images in prop::collection::vec((0..12u32, any::<bool>()), 2..30),
            (escape, overkill, look) in (0.0..50.0f64, 0.0..10.0f64, 0.0..3.0f64),
            prevalence in 0.0..=1.0f64,
        ) {
            let parts = of_images(&images);
            prop_assume!(parts.defect.contains(&true) && parts.defect.contains(&false));
            let costs = Costs { escape, overkill, look };
            let found = band(&parts, BandGoal::Costs(costs), Some(prevalence)).unwrap();
            prop_assert!(found.accept_below <= found.reject_from);
            let least = cost(&parts, found, costs, prevalence);
            let ends: Vec<f64> = (0..=12).map(|i| (f64::from(i) - 0.5) / 11.0).collect();
            for (i, &accept_below) in ends.iter().enumerate() {
                for &reject_from in &ends[i..] {
                    let other = cost(&parts, Band { accept_below, reject_from }, costs, prevalence);
                    prop_assert!(least <= other + 1e-9, "{found:?} costs {least}, {accept_below} {reject_from} {other}");
                }
            }
        }

        #[test]
        fn limits_are_kept_on_the_parts_they_were_chosen_on(
            images in prop::collection::vec((0..12u32, any::<bool>()), 2..30),
            limits in (0.0..=1.0f64, 0.0..=1.0f64),
        ) {
            let parts = of_images(&images);
            let defect = &parts.defect;
            let limits = Limits { max_escape: limits.0, max_overkill: limits.1 };
            let found = band(&parts, BandGoal::Limits(limits), None);
            prop_assert_eq!(found.is_some(), defect.contains(&true) && defect.contains(&false));
            let Some(found) = found else { return Ok(()) };
            let share = |wanted: bool, hit: &dyn Fn(f64) -> bool| {
                let of: Vec<f64> =
                    parts.scores.iter().zip(defect).filter(|(_, d)| **d == wanted).map(|(s, _)| *s).collect();
                of.iter().filter(|&&score| hit(score)).count() as f64 / of.len() as f64
            };
            prop_assert!(share(true, &|score| score < found.accept_below) <= limits.max_escape);
            prop_assert!(share(false, &|score| score >= found.reject_from) <= limits.max_overkill);
            prop_assert!(found.accept_below <= found.reject_from);
        }
    }

    #[test]
    fn sure_scores_need_no_look_and_ties_do() {
        let costs = Costs { escape: 100.0, overkill: 10.0, look: 1.0 };
        let defect = [true, true, false, false];
        let band = |scores: &[f64]| band(&parts(scores, &defect), BandGoal::Costs(costs), None).unwrap();
        let sure = band(&[0.9, 0.8, 0.2, 0.1]);
        assert_eq!((sure.accept_below, sure.reject_from), (0.5, 0.5));
        let tied = band(&[0.9, 0.5, 0.5, 0.1]);
        assert!(tied.accept_below < 0.5 && tied.reject_from > 0.5, "{tied:?}");
    }

    #[test]
    fn thresholds_without_a_side_are_undefined() {
        for (scores, defect) in
            [(&[0.3, 0.6][..], [true, true]), (&[0.3, 0.6], [false; 2]), (&[f64::NAN, 0.6], [true, false])]
        {
            let parts = parts(scores, &defect);
            assert!(thresholds(&parts).iter().all(|threshold| threshold.threshold.is_none()));
            let limits = Limits { max_escape: 0.0, max_overkill: 0.0 };
            assert_eq!(super::band(&parts, BandGoal::Limits(limits), None), None);
        }
    }
}
