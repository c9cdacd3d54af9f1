//! Weights of the loss and offsets of the logits, from the number of training images of each class.

use crate::config::LossWeights;

/// A weight for each class from its number of training images; empty when all are 1.
///
/// They are scaled so that the mean over the training images is 1: the learning rate means what it did without weights.
pub fn class_weights(kind: LossWeights, counts: &[usize]) -> Vec<f32> {
    if kind == LossWeights::None {
        return Vec::new();
    }
    let rarity = |&n: &f64| match kind {
        LossWeights::Effective { beta } => (1.0 - beta) / (1.0 - beta.powf(n)),
        LossWeights::None | LossWeights::Balanced => 1.0 / n,
    };
    let counts: Vec<f64> = counts.iter().map(|&count| count.max(1) as f64).collect();
    let weights: Vec<f64> = counts.iter().map(rarity).collect();
    let mean = weights.iter().zip(&counts).map(|(weight, n)| weight * n).sum::<f64>() / counts.iter().sum::<f64>();
    weights.iter().map(|weight| (weight / mean) as f32).collect()
}

/// `tau` times the logarithm of each class's share of the training images.
pub fn logit_offsets(tau: f64, counts: &[usize]) -> Vec<f32> {
    let total: usize = counts.iter().map(|&count| count.max(1)).sum();
    counts.iter().map(|&count| (tau * (count.max(1) as f64 / total as f64).ln()) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_are_scikit_learns() {
        assert_eq!(class_weights(LossWeights::Balanced, &[3, 1]), [4.0 / 6.0, 2.0]);
        assert!(class_weights(LossWeights::None, &[3, 1]).is_empty());
    }

    /// From `(1 - beta) / (1 - beta ** n)`, scaled, in Python.
    #[test]
    fn effective_weights_lie_between_none_and_balanced() {
        let weights = class_weights(LossWeights::Effective { beta: 0.99 }, &[300, 20]);
        assert!((weights[0] - 0.791_203).abs() < 1e-5 && (weights[1] - 4.131_961).abs() < 1e-5, "{weights:?}");
        assert_eq!(class_weights(LossWeights::Effective { beta: 0.0 }, &[300, 20]), [1.0, 1.0]);
        let nearly_one = class_weights(LossWeights::Effective { beta: 1.0 - 1e-9 }, &[3, 1]);
        assert!((nearly_one[1] - 2.0).abs() < 1e-4, "{nearly_one:?}");
    }

    #[test]
    fn offsets_are_log_shares() {
        let offsets = logit_offsets(2.0, &[3, 1]);
        assert!((offsets[0] - 2.0 * 0.75f32.ln()).abs() < 1e-6 && (offsets[1] - 2.0 * 0.25f32.ln()).abs() < 1e-6);
    }
}
