//! Nearest neighbours by cosine with the weighted vote of DINOv2 (`eval/knn.py`): each of the k neighbours votes for its
//! class with weight exp(similarity / temperature), and votes are scaled to add up to 1.

use super::Samples;
use super::head::{accuracy, argmax_rows};
use crate::error::{Error, Result};
use crate::linalg::Matrix;
use crate::linalg::neighbors::{Metric, Neighbors, nearest};

/// DINOv2's temperature: the smaller, the more the nearest counts.
const TEMPERATURE: f64 = 0.07;

/// How neighbours vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knn {
    /// Number of neighbours, at most all there are.
    pub k: usize,
}

/// The votes on some queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Votes {
    /// Shares of the vote (n, K), row-major.
    pub shares: Vec<f32>,
    /// The class with the largest share (n), the first among equals.
    pub predicted: Vec<usize>,
}

impl Knn {
    /// Votes of the training samples on queries (n, d). Weights of classes play no part.
    ///
    /// # Errors
    /// A usage error when k is 0 or the widths differ.
    pub fn vote(&self, train: &Samples<'_>, queries: Matrix<'_>) -> Result<Votes> {
        if self.k == 0 {
            return Err(Error::usage_hint(
                "no neighbour can vote with k = 0", "k is 1 or more; DINOv2 tries 10 to 200",
            ));
        }
        let neighbors = nearest(queries, train.features(), self.k, Metric::Cosine, false)?;
        Ok(votes(&neighbors, train, self.k))
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
    each: &mut dyn FnMut(KnnScore) -> Result<()>,
) -> Result<()> {
    let most = grid.iter().copied().max().unwrap_or(0);
    let own = nearest(train.features(), train.features(), most, Metric::Cosine, true)?;
    let others = nearest(held_out.features(), train.features(), most, Metric::Cosine, false)?;
    for &k in grid {
        let inside = accuracy(&votes(&own, train, k).predicted, train.labels());
        let Votes { shares, predicted } = votes(&others, train, k);
        each(KnnScore { train: inside, held_out: accuracy(&predicted, held_out.labels()), shares })?;
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
pub(super) fn votes(neighbors: &Neighbors, train: &Samples<'_>, k: usize) -> Votes {
    let (k, classes) = (k.min(neighbors.k), train.classes());
    let queries = neighbors.indices.len() / neighbors.k.max(1);
    let mut shares = Vec::with_capacity(queries * classes);
    for i in 0..queries {
        let (indices, similarities) = (&neighbors.of(i)[..k], &neighbors.distances_of(i)[..k]);
        let mut row = vec![0f64; classes];
        for (&index, &similarity) in indices.iter().zip(similarities) {
            // Relative to the nearest, which is first: no exponent overflows.
            let closeness = f64::from(similarity) - f64::from(similarities[0]);
            row[train.labels()[index as usize]] += (closeness / TEMPERATURE).exp();
        }
        let total: f64 = row.iter().sum();
        shares.extend(row.iter().map(|vote| (vote / total) as f32));
    }
    Votes { predicted: argmax_rows(&shares, classes), shares }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_counts_most_and_k_is_clamped_and_checked() {
        let (values, names) = ([1f32, 0.0, 0.8, 0.6, 0.6, 0.8], ["a".to_owned(), "b".to_owned()]);
        let train = Samples::new(Matrix::new(&values, 2), &[0, 1, 1], &names).unwrap();
        let vote = |k| Knn { k }.vote(&train, Matrix::new(&[2.0, 0.0], 2));
        let all = vote(3).unwrap();
        let other = ((0.8f64 - 1.0) / 0.07).exp() + ((0.6f64 - 1.0) / 0.07).exp();
        assert!((f64::from(all.shares[1]) - other / (1.0 + other)).abs() < 1e-6, "{all:?}");
        assert_eq!(all.predicted, [0]);
        assert_eq!(vote(200).unwrap(), all);
        assert!(vote(0).is_err());
    }
}
