//! Nearest neighbours by cosine with the weighted vote of DINOv2 (`eval/knn.py`): each of the k neighbours votes for its
//! class with weight exp(similarity / temperature), and votes are scaled to add up to 1.

use super::Samples;
use super::head::{accuracy, argmax_rows};
use crate::error::{Error, Result};
use crate::linalg::Matrix;
use crate::linalg::neighbors::{Metric, Neighbors, nearest};

/// DINOv2's temperature.
pub const TEMPERATURE: f64 = 0.07;

/// How neighbours vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knn {
    /// Number of neighbours, at most all there are.
    pub k: usize,
    /// The smaller, the more the nearest counts.
    pub temperature: f64,
}

/// The votes on some queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Votes {
    /// Neighbours that voted: fewer than requested when there are not so many.
    pub k: usize,
    /// Shares of the vote (n, K), row-major.
    pub shares: Vec<f32>,
    /// The class with the largest share (n), the first among equals.
    pub predicted: Vec<usize>,
}

impl Knn {
    /// Votes of the training samples on queries (n, d). Weights of samples and classes play no part.
    ///
    /// # Errors
    /// A usage error when k is 0, the temperature is not a finite positive number or the widths differ.
    pub fn vote(&self, train: &Samples<'_>, queries: Matrix<'_>) -> Result<Votes> {
        self.check()?;
        let neighbors = nearest(queries, train.features(), self.k, Metric::Cosine, false)?;
        Ok(votes(&neighbors, train, *self))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(Error::usage_hint(
                "no neighbour can vote with k = 0", "k is 1 or more; DINOv2 tries 10 to 200",
            ));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            let message = format!("a temperature of {} is out of range", self.temperature);
            return Err(Error::usage_hint(message, format!("a number above 0; DINOv2's is {TEMPERATURE}")));
        }
        Ok(())
    }
}

/// Accuracies on the training samples (leaving out the one asked about) and on held-out ones.
pub(super) struct KnnScore {
    pub train: f64,
    pub held_out: f64,
    /// Shares of the votes on the held-out ones (n, K).
    pub shares: Vec<f32>,
}

/// Scores each k of an ascending grid; the neighbours are sought once, for the largest.
pub(super) fn knn_path(
    train: &Samples<'_>,
    held_out: &Samples<'_>,
    grid: &[usize],
    temperature: f64,
    each: &mut dyn FnMut(usize, KnnScore) -> Result<()>,
) -> Result<()> {
    grid.iter().try_for_each(|&k| Knn { k, temperature }.check())?;
    let most = grid.iter().copied().max().unwrap_or(0);
    let own = nearest(train.features(), train.features(), most, Metric::Cosine, true)?;
    let others = nearest(held_out.features(), train.features(), most, Metric::Cosine, false)?;
    for &k in grid {
        let knn = Knn { k, temperature };
        let inside = accuracy(&votes(&own, train, knn).predicted, train.labels());
        let Votes { shares, predicted, .. } = votes(&others, train, knn);
        each(k, KnnScore { train: inside, held_out: accuracy(&predicted, held_out.labels()), shares })?;
    }
    Ok(())
}

/// The share of a class that no neighbour votes for: small, but with a finite logarithm.
const LEAST_SHARE: f32 = 1e-6;

/// Shares of a vote as logits, whose softmax is the shares.
pub fn vote_logits(shares: &[f32]) -> Vec<f32> {
    shares.iter().map(|share| share.max(LEAST_SHARE).ln()).collect()
}

/// The vote of the first k neighbours of each query.
pub(super) fn votes(neighbors: &Neighbors, train: &Samples<'_>, knn: Knn) -> Votes {
    let (k, classes) = (knn.k.min(neighbors.k), train.classes());
    let queries = neighbors.indices.len() / neighbors.k.max(1);
    let mut shares = Vec::with_capacity(queries * classes);
    for i in 0..queries {
        let (indices, similarities) = (&neighbors.of(i)[..k], &neighbors.distances_of(i)[..k]);
        let mut row = vec![0f64; classes];
        for (&index, &similarity) in indices.iter().zip(similarities) {
            // Relative to the nearest, which is first: no exponent overflows.
            let closeness = f64::from(similarity) - f64::from(similarities[0]);
            row[train.labels()[index as usize]] += (closeness / knn.temperature).exp();
        }
        let total: f64 = row.iter().sum();
        shares.extend(row.iter().map(|vote| (vote / total) as f32));
    }
    Votes { k, predicted: argmax_rows(&shares, classes), shares }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(knn: Knn) -> Result<Votes> {
        let (values, names) = ([1f32, 0.0, 0.8, 0.6, 0.6, 0.8], ["a".to_owned(), "b".to_owned()]);
        let train = Samples::new(Matrix::new(&values, 2), &[0, 1, 1], &names)?;
        knn.vote(&train, Matrix::new(&[2.0, 0.0], 2))
    }

    #[test]
    fn the_temperature_decides_between_the_near_and_the_many() {
        let cold = vote(Knn { k: 3, temperature: TEMPERATURE }).unwrap();
        let other = ((0.8f64 - 1.0) / 0.07).exp() + ((0.6f64 - 1.0) / 0.07).exp();
        assert!((f64::from(cold.shares[1]) - other / (1.0 + other)).abs() < 1e-6, "{cold:?}");
        assert_eq!(cold.predicted, [0]);
        assert_eq!(vote(Knn { k: 3, temperature: 10.0 }).unwrap().predicted, [1]);
    }

    #[test]
    fn k_is_clamped_and_checked() {
        let all = vote(Knn { k: 200, temperature: TEMPERATURE }).unwrap();
        assert_eq!((all.k, all.predicted), (3, vec![0]));
        assert!(vote(Knn { k: 0, temperature: TEMPERATURE }).is_err());
        assert!(vote(Knn { k: 1, temperature: 0.0 }).is_err());
        assert!(vote(Knn { k: 1, temperature: f64::NAN }).is_err());
    }
}
