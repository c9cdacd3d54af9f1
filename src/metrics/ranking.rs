//! How well scores order samples, whatever the threshold.

/// The area under the ROC curve: the chance that a positive scores above a negative, ties counting half.
///
/// None when only one side is present or a score is NaN.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    Ranking::new(scores)?.curve(positive, |_| 1).auroc()
}

/// Average precision, Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct thresholds, without interpolation.
///
/// None when only one side is present or a score is NaN.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    Ranking::new(scores)?.curve(positive, |_| 1).average_precision()
}

/// Samples by their score, the highest first; those of equal scores together.
pub(super) struct Ranking {
    ties: Vec<(f64, Vec<usize>)>,
}

impl Ranking {
    /// None when a score is NaN.
    pub(super) fn new(scores: &[f64]) -> Option<Self> {
        if scores.iter().any(|score| score.is_nan()) {
            return None;
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let ties = order.chunk_by(|&a, &b| scores[a] == scores[b]);
        Some(Self { ties: ties.map(|tied| (scores[tied[0]], tied.to_vec())).collect() })
    }

    /// The counts above each threshold, where sample i counts `weight(i)` times.
    pub(super) fn curve(&self, positive: &[bool], weight: impl Fn(usize) -> u64) -> RankCurve {
        let mut points = vec![(0, 0)];
        let (mut tp, mut fp) = (0, 0);
        for (_, tied) in &self.ties {
            for &sample in tied {
                *(if positive[sample] { &mut tp } else { &mut fp }) += weight(sample);
            }
            points.push((tp, fp));
        }
        RankCurve(points)
    }

    /// A threshold with the samples of point `point` of every curve at or above it, and the others below: halfway to the
    /// next score, so that rounding moves no sample across. Scores are within [0, 1].
    pub(super) fn threshold(&self, point: usize) -> f64 {
        let above = point.checked_sub(1).and_then(|last| self.ties.get(last)).map(|tie| tie.0);
        let below = self.ties.get(point).map(|tie| tie.0);
        let middle = f64::midpoint(above.unwrap_or(1.0), below.unwrap_or(0.0));
        match (above, below) {
            // Two scores so near that nothing lies between them.
            (Some(above), Some(below)) if middle <= below => above,
            (None, Some(below)) if middle <= below => UNREACHABLE,
            _ => middle,
        }
    }
}

/// A threshold that no probability reaches, where even one of 1 is to stay below.
const UNREACHABLE: f64 = 2.0;

/// (true positives, false positives) above each distinct threshold, from none to all.
pub(super) struct RankCurve(Vec<(u64, u64)>);

impl RankCurve {
    fn steps(&self) -> impl Iterator<Item = ((u64, u64), (u64, u64))> {
        self.0.iter().copied().zip(self.0.iter().copied().skip(1))
    }

    /// Positives and negatives, when there are both.
    pub(super) fn sides(&self) -> Option<(f64, f64)> {
        let (positives, negatives) = self.0.last().copied()?;
        (positives > 0 && negatives > 0).then_some((positives as f64, negatives as f64))
    }

    pub(super) fn points(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// See [`auroc`].
    pub(super) fn auroc(&self) -> Option<f64> {
        let (positives, negatives) = self.sides()?;
        let area: f64 = self.steps().map(|(from, to)| (to.1 - from.1) as f64 * (from.0 + to.0) as f64 / 2.0).sum();
        Some(area / (positives * negatives))
    }

    /// See [`average_precision`].
    pub(super) fn average_precision(&self) -> Option<f64> {
        let (positives, _) = self.sides()?;
        let gain = |(from, to): ((u64, u64), (u64, u64))| match to.0 + to.1 {
            0 => 0.0,
            above => (to.0 - from.0) as f64 * to.0 as f64 / above as f64,
        };
        Some(self.steps().map(gain).sum::<f64>() / positives)
    }

    /// The point of the most positives among those with at most this share of the negatives, and of these the one with
    /// the fewest negatives.
    pub(super) fn within(&self, share: f64) -> Option<usize> {
        let (_, negatives) = self.sides()?;
        let allowed = self.0.iter().take_while(|point| point.1 as f64 / negatives <= share).count();
        let most = self.0[..allowed].last()?.0;
        self.0.iter().position(|point| point.0 == most)
    }

    /// The first point that leaves at most this share of the positives below.
    pub(super) fn leaving(&self, share: f64) -> Option<usize> {
        let (positives, _) = self.sides()?;
        self.0.iter().position(|point| (positives - point.0 as f64) / positives <= share)
    }

    /// The largest share of the positives above a threshold with at most this share of the negatives above it.
    pub(super) fn recall_within(&self, share: f64) -> Option<f64> {
        Some(self.0[self.within(share)?].0 as f64 / self.sides()?.0)
    }

    /// The least share of the negatives above a threshold that has all positives above it.
    pub(super) fn share_with_all(&self) -> Option<f64> {
        Some(self.0[self.leaving(0.0)?].1 as f64 / self.sides()?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_side_or_nan_is_undefined() {
        assert_eq!(auroc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(average_precision(&[0.1, 0.2], &[false, false]), None);
        assert_eq!(auroc(&[0.1, f64::NAN], &[true, false]), None);
    }

    #[test]
    fn all_tied_is_chance() {
        assert_eq!(auroc(&[0.5; 4], &[true, false, false, true]), Some(0.5));
        assert_eq!(average_precision(&[0.5; 4], &[true, false, false, true]), Some(0.5));
        // The two zeros are one threshold, although their bits differ.
        assert_eq!(auroc(&[0.0, -0.0], &[true, false]), Some(0.5));
    }

    #[test]
    fn thresholds_part_the_scores_and_stay_between_them() {
        let scores = [0.2, 0.9, 0.2, 0.9 - 1e-16, 0.6];
        let ranking = Ranking::new(&scores).unwrap();
        let above: Vec<usize> = (0..=4)
            .map(|point| ranking.threshold(point))
            .map(|threshold| scores.iter().filter(|&&score| score >= threshold).count())
            .collect();
        assert_eq!(above, [0, 1, 2, 3, 5]);
        assert_eq!((ranking.threshold(0), ranking.threshold(4)), (0.95, 0.1));
        let certain = Ranking::new(&[1.0, 0.0]).unwrap();
        assert_eq!([0, 1, 2].map(|point| certain.threshold(point)), [UNREACHABLE, 0.5, 0.0]);
    }

    proptest! {
        #[test]
        fn only_the_order_matters(samples in prop::collection::vec((-8..8_i32, any::<bool>()), 2..60)) {
            let (scores, positive): (Vec<f64>, Vec<bool>) = samples.iter().map(|&(s, p)| (f64::from(s), p)).unzip();
            let warped: Vec<f64> = scores.iter().map(|s| (s / 3.0).exp()).collect();
            prop_assert_eq!(auroc(&scores, &positive), auroc(&warped, &positive));
            prop_assert_eq!(average_precision(&scores, &positive), average_precision(&warped, &positive));
            let reversed: Vec<f64> = scores.iter().map(|s| -s).collect();
            if let (Some(a), Some(b)) = (auroc(&scores, &positive), auroc(&reversed, &positive)) {
                prop_assert!((a + b - 1.0).abs() < 1e-12);
            }
        }
    }
}
