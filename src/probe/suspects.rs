//! Labels worth a second look: images whose neighbours among the features carry another label.
//!
//! Each image is judged by the vote of its nearest others (leave-one-out kNN, as in Northcutt et al. 2021's
//! out-of-sample predictions, without training anything). A finding is only a suspicion: a rare variant of a class looks
//! the same.

use super::Samples;
use super::knn::votes;
use crate::error::Result;
use crate::linalg::neighbors::{Metric, nearest};

/// An image whose neighbours contradict its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// Its row.
    pub sample: usize,
    /// The class that most of the vote goes to.
    pub suggested: usize,
    /// The share of the vote for that class, from 0 to 1.
    pub confidence: f64,
    /// Its neighbours, nearest first.
    pub neighbors: Vec<usize>,
}

/// The samples whose `k` nearest others by cosine vote for another class, the most certain first.
///
/// # Errors
/// When the vectors cannot be compared.
pub fn suspects(samples: &Samples<'_>, k: usize) -> Result<Vec<Suspect>> {
    let features = samples.features();
    let neighbors = nearest(features, features, k, Metric::Cosine, true)?;
    if neighbors.k == 0 {
        return Ok(Vec::new());
    }
    let votes = votes(&neighbors, samples, k);
    let mut found: Vec<Suspect> = (0..features.rows())
        .filter(|&sample| votes.predicted[sample] != samples.labels()[sample])
        .map(|sample| Suspect {
            sample,
            suggested: votes.predicted[sample],
            confidence: f64::from(votes.shares[sample * samples.classes() + votes.predicted[sample]]),
            neighbors: neighbors.of(sample).iter().map(|&index| index as usize).collect(),
        })
        .collect();
    found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.sample.cmp(&b.sample)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::Matrix;

    /// Two clear groups, with one label of the first and one of the second swapped.
    #[test]
    fn swapped_labels_are_found_first_and_alone() {
        let names = ["a".to_owned(), "b".to_owned()];
        let values: Vec<f32> = (0..40)
            .flat_map(|i| {
                let along = (i % 20) as f32 / 100.0;
                if i < 20 { [1.0, along] } else { [along, 1.0] }
            })
            .collect();
        let mut labels: Vec<usize> = (0..40).map(|i| usize::from(i >= 20)).collect();
        (labels[7], labels[31]) = (1, 0);
        let samples = Samples::new(Matrix::new(&values, 2), &labels, &names).unwrap();
        let found = suspects(&samples, 10).unwrap();
        let summary: Vec<_> = found.iter().map(|suspect| (suspect.sample, suspect.suggested)).collect();
        assert_eq!(summary.len(), 2);
        assert!(summary.contains(&(7, 0)) && summary.contains(&(31, 1)), "{summary:?}");
        assert!(found[0].confidence >= found[1].confidence && found[1].confidence > 0.8);
        assert!(found.iter().all(|suspect| suspect.neighbors.len() == 10));
        assert!(found.iter().all(|suspect| !suspect.neighbors.contains(&suspect.sample)));
    }

    #[test]
    fn one_sample_has_no_neighbour() {
        let names = ["a".to_owned()];
        let samples = Samples::new(Matrix::new(&[1.0, 2.0], 2), &[0], &names).unwrap();
        assert_eq!(suspects(&samples, 10).unwrap(), []);
    }
}
