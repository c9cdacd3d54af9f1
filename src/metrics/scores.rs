//! Logits with their labels, checked once so that no metric has to.

use crate::error::{DataError, Result};

/// Logits (n, k), row-major, and the n true labels; n and k are at least 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    logits: Vec<f64>,
    labels: Vec<usize>,
    classes: usize,
}

impl Scores {
    /// Takes `labels.len() * classes` logits and labels below `classes`.
    ///
    /// # Errors
    /// [`DataError::Invalid`] when there is no sample, the lengths disagree or a label is not a class.
    pub fn new<T: Copy + Into<f64>>(logits: &[T], labels: &[usize], classes: usize) -> Result<Self> {
        if labels.is_empty() {
            return Err(
                DataError::invalid("there is no image to score", "name a split or folder that has images").into()
            );
        }
        if labels.len().checked_mul(classes) != Some(logits.len()) {
            let message = format!("{} logits do not fit {} images of {classes} classes", logits.len(), labels.len());
            return Err(DataError::Invalid { message, hint: None }.into());
        }
        if let Some(label) = labels.iter().find(|&&label| label >= classes) {
            let message = format!("label {label} is not one of {classes} classes");
            return Err(DataError::invalid(message, format!("labels are 0 to {}", classes.saturating_sub(1))).into());
        }
        Ok(Self { logits: logits.iter().map(|&x| x.into()).collect(), labels: labels.to_vec(), classes })
    }

    /// The number of samples.
    #[allow(clippy::len_without_is_empty, reason = "never empty by construction")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The true labels (n).
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Each sample's logits (k) with its true label.
    pub fn rows(&self) -> impl Iterator<Item = (&[f64], usize)> {
        self.logits.chunks_exact(self.classes).zip(self.labels.iter().copied())
    }

    /// The class of the largest logit of each sample (n): the first one among equals, never one that is NaN unless
    /// the whole row is.
    pub fn predicted(&self) -> Vec<usize> {
        self.rows().map(|(row, _)| argmax(row)).collect()
    }

    /// For each class its probability in every sample (n), and which samples are of it (n).
    pub(super) fn each_against_the_rest(&self) -> impl Iterator<Item = (Vec<f64>, Vec<bool>)> {
        let probabilities: Vec<f64> = self.rows().flat_map(|(row, _)| softmax(row, 1.0)).collect();
        (0..self.classes).map(move |class| {
            let column = probabilities.iter().skip(class).step_by(self.classes).copied().collect();
            (column, self.labels.iter().map(|&label| label == class).collect())
        })
    }
}

/// The index of the first largest value that is not NaN; 0 when there is none.
pub fn argmax(row: &[f64]) -> usize {
    let larger = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
    (0..row.len()).filter(|&i| !row[i].is_nan()).reduce(larger).unwrap_or(0)
}

/// Softmax of `row / temperature` (k).
pub fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let log_total = log_sum_exp(row, temperature);
    row.iter().map(|x| (x / temperature - log_total).exp()).collect()
}

/// ln Σ exp(xᵢ / temperature), safe from overflow; NaN when an x is NaN.
pub(super) fn log_sum_exp(row: &[f64], temperature: f64) -> f64 {
    let top = row[argmax(row)] / temperature;
    top + row.iter().map(|x| (x / temperature - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(Scores::new::<f32>(&[], &[], 2).is_err());
        assert!(Scores::new(&[1.0_f32, 2.0, 3.0], &[0], 2).is_err());
        assert!(Scores::new(&[1.0_f32, 2.0], &[2], 2).is_err());
        assert!(Scores::new::<f32>(&[], &[0], 0).is_err());
        assert!(Scores::new(&[1.0_f32, 2.0], &[1], 2).is_ok());
    }

    #[test]
    fn argmax_takes_the_first_and_skips_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f64::NAN, -1.0, -2.0]), 1);
        assert_eq!(argmax(&[0.0, f64::NAN, 1.0]), 2);
        assert_eq!(argmax(&[f64::NAN, f64::NAN]), 0);
    }

    #[test]
    fn softmax_survives_extreme_logits() {
        let p = softmax(&[1e4, 0.0, -1e4], 1.0);
        assert_eq!(p, [1.0, 0.0, 0.0]);
        assert!((softmax(&[2.0, 0.0], 2.0)[0] - 1.0 / (1.0 + (-1.0_f64).exp())).abs() < 1e-15);
    }
}
