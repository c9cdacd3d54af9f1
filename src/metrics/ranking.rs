//! How well scores order samples, whatever the threshold.

/// The area under the ROC curve: the chance that a positive scores above a negative, ties counting half.
///
/// None when only one side is present or a score is NaN.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let curve = Curve::new(scores, positive)?;
    let area: f64 = curve.steps().map(|(from, to)| (to.1 - from.1) as f64 * (from.0 + to.0) as f64 / 2.0).sum();
    Some(area / (curve.positives() as f64 * curve.negatives() as f64))
}

/// Average precision, Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct thresholds, without interpolation.
///
/// None when only one side is present or a score is NaN.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let curve = Curve::new(scores, positive)?;
    let sum: f64 = curve.steps().map(|(from, to)| (to.0 - from.0) as f64 * to.0 as f64 / (to.0 + to.1) as f64).sum();
    Some(sum / curve.positives() as f64)
}

/// (true positives, false positives) at each distinct threshold, from the highest score down.
struct Curve(Vec<(u64, u64)>);

impl Curve {
    fn new(scores: &[f64], positive: &[bool]) -> Option<Self> {
        let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
        if ranked.iter().any(|(score, _)| score.is_nan()) {
            return None;
        }
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut points = vec![(0, 0)];
        for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
            let hits = tied.iter().filter(|(_, positive)| *positive).count() as u64;
            let (tp, fp) = points.last().copied().unwrap_or_default();
            points.push((tp + hits, fp + tied.len() as u64 - hits));
        }
        let curve = Self(points);
        (curve.positives() > 0 && curve.negatives() > 0).then_some(curve)
    }

    fn steps(&self) -> impl Iterator<Item = ((u64, u64), (u64, u64))> {
        self.0.iter().copied().zip(self.0.iter().copied().skip(1))
    }

    fn positives(&self) -> u64 {
        self.0.last().map_or(0, |point| point.0)
    }

    fn negatives(&self) -> u64 {
        self.0.last().map_or(0, |point| point.1)
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
