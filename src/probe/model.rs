//! Scores of a fitted probe as logits, so that every probe is evaluated and calibrated like a trained head.

use super::knn::vote_logits;
use super::{FittedProbe, Samples};
use crate::error::Result;
use crate::linalg::Matrix;

impl FittedProbe {
    /// Logits (n, K) of queries (n, d). `fitted_on` are the samples of the fit, which vote in kNN and Tip-Adapter.
    ///
    /// # Errors
    /// A usage error when the widths differ.
    pub fn logits(&self, fitted_on: &Samples<'_>, queries: Matrix<'_>) -> Result<Vec<f32>> {
        match self {
            Self::Linear(fit) => fit.head.logits(queries),
            Self::Knn(knn) => Ok(vote_logits(&knn.vote(fitted_on, queries)?.shares)),
            Self::Tip(tip) => tip.logits(fitted_on, queries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Knn;

    #[test]
    fn votes_come_back_from_their_logits() {
        let (values, names) = ([1f32, 0.0, 0.0, 1.0], ["a".to_owned(), "b".to_owned()]);
        let train = Samples::new(Matrix::new(&values, 2), &[0, 1], &names).unwrap();
        let model = FittedProbe::Knn(Knn { k: 2, temperature: 1.0 });
        let logits = model.logits(&train, Matrix::new(&[1.0, 0.0], 2)).unwrap();
        let share = 1.0 / (1.0 + (-1f32).exp());
        assert!((logits[0].exp() - share).abs() < 1e-6 && (logits[0].exp() + logits[1].exp() - 1.0).abs() < 1e-6);
        assert!(vote_logits(&[0.0]).iter().all(|logit| logit.is_finite()));
    }
}
