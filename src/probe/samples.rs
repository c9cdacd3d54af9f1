//! What a probe is fitted on, checked once so that no solver has to.

use crate::error::{DataError, Error, Result};
use crate::linalg::{Matrix, tally};

/// Feature vectors with their classes and the weights of these.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    features: Matrix<'a>,
    labels: Vec<usize>,
    names: &'a [String],
    class_weights: Vec<f64>,
}

impl<'a> Samples<'a> {
    /// Features (n, d) and n labels, each the index of its class in `names`. Every weight is 1.
    ///
    /// # Errors
    /// A data error when there is no sample, the lengths disagree, a label is not a class or a feature is not finite.
    pub fn new(features: Matrix<'a>, labels: &[usize], names: &'a [String]) -> Result<Self> {
        if features.rows() == 0 {
            return Err(DataError::invalid("there is no image to fit a probe on", "name a folder with images").into());
        }
        if features.rows() != labels.len() {
            let message = format!("{} feature vectors do not fit {} labels", features.rows(), labels.len());
            return Err(DataError::Invalid { message, hint: None }.into());
        }
        if let Some(label) = labels.iter().find(|&&label| label >= names.len()) {
            let message = format!("label {label} is not one of {} classes", names.len());
            return Err(DataError::Invalid { message, hint: None }.into());
        }
        features.check_finite(|i| format!("sample {i} (class {:?})", names[labels[i]]))?;
        Ok(Self { features, labels: labels.to_vec(), names, class_weights: vec![1.0; names.len()] })
    }

    /// With other weights of the classes (K).
    ///
    /// # Errors
    /// A usage error when their number is wrong or one is not a finite positive number.
    pub fn weighted(self, class_weights: Vec<f64>) -> Result<Self> {
        let sound = class_weights.iter().all(|weight| weight.is_finite() && *weight > 0.0);
        if sound && class_weights.len() == self.classes() {
            return Ok(Self { class_weights, ..self });
        }
        let message = format!("{class_weights:?} are no weights of {} classes", self.classes());
        Err(Error::usage_hint(message, "a finite number above 0 for each"))
    }

    /// With scikit-learn's "balanced" weights: n over K times the samples of the class, which make every class count alike; 1
    /// for a class without samples.
    #[must_use]
    pub fn balanced(self) -> Self {
        let all = self.len() as f64;
        let weight = |count: usize| if count == 0 { 1.0 } else { all / (self.classes() * count) as f64 };
        Self { class_weights: self.counts().into_iter().map(weight).collect(), ..self }
    }

    /// The feature vectors (n, d).
    pub fn features(&self) -> Matrix<'a> {
        self.features
    }

    /// The class of each sample (n).
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The number of samples.
    #[allow(clippy::len_without_is_empty, reason = "never empty by construction")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// The weight of each class (K).
    pub fn class_weights(&self) -> &[f64] {
        &self.class_weights
    }

    /// The same samples with other features, row for row.
    pub(super) fn with_features<'b>(&self, features: Matrix<'b>) -> Samples<'b>
    where
        'a: 'b,
    {
        Samples { features, ..self.clone() }
    }

    /// Some samples, with their features in `storage`.
    pub fn subset<'b>(&self, indices: &[usize], storage: &'b mut Vec<f32>) -> Samples<'b>
    where
        'a: 'b,
    {
        *storage = self.features.select(indices);
        Samples {
            features: Matrix::new(storage, self.features.cols()),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            names: self.names,
            class_weights: self.class_weights.clone(),
        }
    }

    /// Samples of each class (K).
    pub fn counts(&self) -> Vec<usize> {
        tally(self.labels.iter().copied(), self.classes())
    }

    /// Refuses samples that no linear classifier can be fitted on. A class without a sample has no finite optimum
    /// (its bias would fall for ever), so it is an error here; scikit-learn silently drops it.
    ///
    /// # Errors
    /// A data error that names the only class or the absent ones.
    pub fn check_classes(&self) -> Result<()> {
        let counts = self.counts();
        let named = |keep: &dyn Fn(usize) -> bool| -> String {
            let names: Vec<String> =
                (0..counts.len()).filter(|&c| keep(counts[c])).map(|c| format!("{:?}", self.names[c])).collect();
            names.join(", ")
        };
        if counts.iter().filter(|&&count| count > 0).count() < 2 {
            let message = format!("every training image is of the class {}", named(&|count| count > 0));
            return Err(DataError::invalid(message, "a probe needs images of at least two classes").into());
        }
        if counts.contains(&0) {
            let message = format!("no training image is of the class {}", named(&|count| count == 0));
            return Err(DataError::invalid(message, "add training images of it, or leave the class out").into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("c{i}")).collect()
    }

    fn message(result: Result<impl Sized>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn bad_samples_are_named() {
        let (values, names) = ([1f32, 2.0, f32::NAN, 4.0], names(2));
        let two = Matrix::new(&values[..2], 1);
        assert!(message(Samples::new(Matrix::new(&[], 1), &[], &names)).contains("no image"));
        assert!(message(Samples::new(two, &[0], &names)).contains("1 labels"));
        assert!(message(Samples::new(two, &[0, 2], &names)).contains("label 2"));
        assert!(message(Samples::new(Matrix::new(&values, 2), &[0, 1], &names)).contains("\"c1\""));
    }

    #[test]
    fn classes_must_be_present() {
        let (values, names) = ([1f32, 2.0, 3.0], names(3));
        let matrix = Matrix::new(&values, 1);
        let check = |labels: &[usize]| message(Samples::new(matrix, labels, &names).unwrap().check_classes());
        assert!(check(&[1, 1, 1]).contains("of the class \"c1\""));
        assert!(check(&[1, 1, 0]).contains("\"c2\""));
        assert_eq!(check(&[2, 1, 0]), "");
    }

    #[test]
    fn weights_are_checked_and_balanced_ones_are_scikit_learns() {
        let (values, names) = ([1f32, 2.0, 3.0, 4.0], names(3));
        let samples = Samples::new(Matrix::new(&values, 1), &[0, 0, 0, 1], &names).unwrap();
        for weights in [vec![1.0; 2], vec![1.0, -1.0, 1.0], vec![1.0, f64::NAN, 1.0]] {
            assert!(samples.clone().weighted(weights).is_err());
        }
        assert_eq!(samples.balanced().class_weights(), [4.0 / 9.0, 4.0 / 3.0, 1.0]);
    }
}
