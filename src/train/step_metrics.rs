//! What the host decides by after a step: the loss, the hits and the norm of the gradients.
//!
//! They stay where they were computed until the last one is under way, and are then read in one transfer. On a GPU each
//! read waits for all that was asked of the device before; one a step is the least there can be.

use crate::nn::workers::Workers;
use crate::optim::gradients::{Gradients, Squares};
use candle_core::{D, DType, Result, Tensor};

/// Metrics of a step that still lie on the device: scalars in f32.
#[derive(Debug, Default)]
pub(super) struct PendingMetrics {
    losses: Vec<Tensor>,
    hits: Vec<Tensor>,
}

/// The same on the host.
pub(super) struct StepMetrics {
    /// The sum of the losses.
    pub loss: f64,
    /// The sum of the hits.
    pub correct: usize,
    /// The norm of the gradients.
    pub norm: f64,
}

impl PendingMetrics {
    /// Notes a part's loss and hits.
    pub fn add(&mut self, loss: Tensor, hits: Tensor) {
        self.losses.push(loss);
        self.hits.push(hits);
    }

    /// Notes a term of the loss.
    pub fn add_loss(&mut self, loss: Tensor) {
        self.losses.push(loss);
    }

    /// Reads everything, the norm of `gradients` included. Sums are taken on the host in the order of the parts.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(self, gradients: &Gradients, workers: &Workers) -> Result<StepMetrics> {
        let (losses, hits) = (self.losses.len(), self.hits.len());
        let mut parts = self.losses.into_iter().chain(self.hits).map(|x| x.reshape(1)).collect::<Result<Vec<_>>>()?;
        let known = match gradients.squares(workers)? {
            Squares::Known(sum) => Some(sum),
            Squares::Unread(sums) => {
                parts.push(sums);
                None
            }
        };
        let values: Vec<f64> = Tensor::cat(&parts, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
        let (loss, rest) = values.split_at(losses);
        let (hits, squares) = rest.split_at(hits);
        Ok(StepMetrics {
            loss: loss.iter().sum(),
            correct: hits.iter().sum::<f64>() as usize,
            norm: gradients.norm_of(known.unwrap_or_else(|| squares.iter().sum())),
        })
    }
}

/// How many of the rows of logits (B, K) are highest at their label: a scalar in f32, exact to 2^24.
pub(super) fn hits(logits: &Tensor, labels: &[usize]) -> Result<Tensor> {
    let labels: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
    let labels = Tensor::from_vec(labels, logits.dim(0)?, logits.device())?;
    logits.argmax(D::Minus1)?.eq(&labels)?.to_dtype(DType::F32)?.sum_all()
}
