//! A kNN probe as a head: images whose features and classes are remembered vote.

use crate::backbone::Params;
use crate::linalg::Matrix;
use crate::probe::{Knn, Samples, vote_logits};
use candle_core::{Result, Tensor};

/// The remembered features (n, d).
const FEATURES: &str = "neighbors.features";
/// Their classes (n).
const LABELS: &str = "neighbors.labels";

/// Images that vote.
#[derive(Debug)]
pub struct VoteHead {
    knn: Knn,
    features: Vec<f32>,
    labels: Vec<usize>,
    /// Votes go by number; the names are for messages only.
    classes: Vec<String>,
}

impl VoteHead {
    /// The head over `params`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(knn: Knn, params: &Params, classes: usize) -> Result<Self> {
        let labels = params.tensor(LABELS)?.to_vec1::<f32>()?;
        Ok(Self {
            knn,
            features: params.tensor(FEATURES)?.flatten_all()?.to_vec1()?,
            labels: labels.into_iter().map(|label| label as usize).collect(),
            classes: vec![String::new(); classes],
        })
    }

    /// The parameters that make images vote, from their features (n, d) and classes (n). None of them is trainable.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn params(features: Tensor, labels: &[usize]) -> Result<Params> {
        let labels = Tensor::from_iter(labels.iter().map(|&label| label as f32), features.device())?;
        Ok(Params::from_iter([(LABELS, labels), (FEATURES, features)]))
    }

    /// features (B, d) to logits (B, classes), on the CPU whatever the device.
    ///
    /// # Errors
    /// When the features have another width.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let (rows, width) = features.dims2()?;
        let queries = features.flatten_all()?.to_vec1::<f32>()?;
        let vote = || -> crate::error::Result<Vec<f32>> {
            let voters = Samples::new(Matrix::new(&self.features, width), &self.labels, &self.classes)?;
            Ok(vote_logits(&self.knn.vote(&voters, Matrix::new(&queries, width))?.shares))
        };
        let logits = vote().map_err(candle_core::Error::wrap)?;
        Tensor::from_vec(logits, (rows, self.classes.len()), features.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn classes_without_voters_are_answered_too() {
        let tensor = |values: &[f32]| Tensor::from_slice(values, (2, 2), &Device::Cpu).unwrap();
        let params = VoteHead::params(tensor(&[1.0, 0.0, 0.0, 1.0]), &[2, 0]).unwrap();
        let head = VoteHead::new(Knn { k: 1 }, &params, 4).unwrap();
        let logits = head.forward(&tensor(&[3.0, 1.0, 0.1, 0.2])).unwrap().to_vec2::<f32>().unwrap();
        let right = |row: &[f32], class: usize| (0..4).all(|other| other == class || row[other] < row[class] - 1.0);
        assert!(right(&logits[0], 2) && right(&logits[1], 0), "{logits:?}");
        assert!(VoteHead::new(Knn { k: 1 }, &Params::default(), 4).is_err());
    }
}
