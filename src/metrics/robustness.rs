//! How robust a model is against flaws of growing strength: the content of `robustness-<split>.json`.
//!
//! As Hendrycks and Dietterich 2019 summarise corruptions, every kind and every strength counts alike.

use super::{Evaluation, mean};
use serde::{Deserialize, Serialize};

/// Scores of one split with flaws added to its images.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Robustness {
    /// The split or folder that was scored.
    pub split: String,
    /// Samples.
    pub n: usize,
    /// Seed of the flaws.
    pub seed: u64,
    /// Strengths of the flaws, rising, above 0 to 1.
    pub strengths: Vec<f64>,
    /// Accuracy of the images as they are.
    pub clean_accuracy: f64,
    /// Likewise, the mean of the recalls.
    pub clean_balanced_accuracy: f64,
    /// Mean accuracy over kinds and strengths.
    pub mean_accuracy: f64,
    /// Mean over kinds and strengths of the mean of the recalls.
    pub mean_balanced_accuracy: f64,
    /// Mean accuracy / clean accuracy; undefined when that is 0.
    pub relative_accuracy: Option<f64>,
    /// Mean accuracy over kinds, by strength.
    pub mean_by_strength: Vec<f64>,
    /// One entry per kind of flaw, in the order requested.
    pub kinds: Vec<FlawScores>,
}

/// Scores under one kind of flaw.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FlawScores {
    /// The flaw.
    pub kind: String,
    /// Mean accuracy over strengths.
    pub mean_accuracy: f64,
    /// Mean accuracy / clean accuracy; undefined when that is 0.
    pub relative_accuracy: Option<f64>,
    /// Accuracy by strength.
    pub accuracy: Vec<f64>,
    /// The mean of the recalls by strength.
    pub balanced_accuracy: Vec<f64>,
}

impl Robustness {
    /// Sums up the evaluations of each kind at each of `strengths`, beside that of the images as they are. There is at
    /// least one kind and one strength.
    pub fn new(seed: u64, strengths: Vec<f64>, clean: &Evaluation, kinds: &[(&str, Vec<Evaluation>)]) -> Self {
        let all = || kinds.iter().flat_map(|(_, evaluations)| evaluations);
        let of_all = |value: fn(&Evaluation) -> f64| mean(all().map(value)).unwrap_or(f64::NAN);
        let mean_accuracy = of_all(|evaluation| evaluation.accuracy);
        let at = |level: usize| kinds.iter().filter_map(move |(_, evaluations)| evaluations.get(level));
        Self {
            split: clean.split.clone(),
            n: clean.n,
            seed,
            clean_accuracy: clean.accuracy,
            clean_balanced_accuracy: clean.balanced_accuracy,
            mean_accuracy,
            mean_balanced_accuracy: of_all(|evaluation| evaluation.balanced_accuracy),
            relative_accuracy: relative(mean_accuracy, clean),
            mean_by_strength: (0..strengths.len())
                .filter_map(|level| mean(at(level).map(|evaluation| evaluation.accuracy)))
                .collect(),
            strengths,
            kinds: kinds.iter().map(|(kind, evaluations)| FlawScores::new(kind, evaluations, clean)).collect(),
        }
    }
}

impl FlawScores {
    fn new(kind: &str, evaluations: &[Evaluation], clean: &Evaluation) -> Self {
        let accuracy: Vec<f64> = evaluations.iter().map(|evaluation| evaluation.accuracy).collect();
        let mean_accuracy = mean(accuracy.iter().copied()).unwrap_or(f64::NAN);
        Self {
            kind: kind.to_owned(),
            mean_accuracy,
            relative_accuracy: relative(mean_accuracy, clean),
            accuracy,
            balanced_accuracy: evaluations.iter().map(|evaluation| evaluation.balanced_accuracy).collect(),
        }
    }
}

fn relative(accuracy: f64, clean: &Evaluation) -> Option<f64> {
    (clean.accuracy > 0.0).then(|| accuracy / clean.accuracy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::evaluate;

    /// Three images of one class and one of another, of which so many are right.
    fn evaluation(right: usize) -> Evaluation {
        let logits: Vec<f32> =
            (0..4).flat_map(|i| if (i < right) == (i < 3) { [1.0, 0.0] } else { [0.0, 1.0] }).collect();
        evaluate("test", &logits, &[0, 0, 0, 1], &["a".into(), "b".into()], 1.0, &[]).unwrap()
    }

    #[test]
    fn means_over_kinds_and_strengths() {
        let kinds = [("blur", vec![evaluation(4), evaluation(2)]), ("noise", vec![evaluation(2), evaluation(0)])];
        let found = Robustness::new(7, vec![0.5, 1.0], &evaluation(4), &kinds);
        assert_eq!((found.clean_accuracy, found.mean_accuracy, found.relative_accuracy), (1.0, 0.5, Some(0.5)));
        assert_eq!(found.mean_by_strength, [0.75, 0.25]);
        assert_eq!(found.kinds[0].accuracy, [1.0, 0.5]);
        assert_eq!(found.kinds[1].mean_accuracy, 0.25);
        // Two of three right and none of one: a third.
        assert!((found.kinds[0].balanced_accuracy[1] - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_is_relative_to_nothing() {
        let found = Robustness::new(7, vec![1.0], &evaluation(0), &[("blur", vec![evaluation(2)])]);
        assert_eq!((found.relative_accuracy, found.kinds[0].relative_accuracy), (None, None));
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Robustness>(&json).unwrap(), found);
    }
}
