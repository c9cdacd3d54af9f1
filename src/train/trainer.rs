//! The model in training: gradients of a batch and logits of a batch, each sharded over the workers.

use super::classifier::{Classifier, Regularisation};
use super::gradients::Gradients;
use super::workers::{Workers, cut};
use crate::backbone::{Params, VitSpec};
use crate::data::loader::Batch;
use crate::nn::{Criterion, Mode, Noise, Targets};
use crate::strategy::Plan;
use candle_core::{D, DType, Device, Result, Tensor};
use std::ops::Range;

/// Images that one worker scores at a time: few enough to keep their activations in cache.
const SCORING_SHARD: usize = 8;

/// Parameters, the layers over them, and the workers that run them.
pub struct Trainer {
    /// All parameters; the optimiser writes to the learning ones.
    pub params: Params,
    /// The workers.
    pub workers: Workers,
    learner: Classifier,
    scorer: Classifier,
    device: Device,
    image_size: usize,
}

/// What one batch gave.
#[derive(Debug)]
pub struct Step {
    /// Gradients of the batch's mean loss.
    pub gradients: Gradients,
    /// The batch's mean loss.
    pub loss: f64,
    /// Images classified correctly.
    pub correct: usize,
}

impl Trainer {
    /// Builds the layers; the learning parameters of `params` must be those of `plan`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(
        spec: &VitSpec,
        params: Params,
        plan: &Plan,
        rates: Regularisation,
        workers: Workers,
        device: Device,
    ) -> Result<Self> {
        let build = |params: &Params| Classifier::new(spec, params, plan, rates);
        Ok(Self {
            learner: build(&params)?,
            scorer: build(&params.detached())?,
            image_size: spec.image_size,
            params,
            workers,
            device,
        })
    }

    /// The gradients of the mean loss over a batch, computed in `micro_batches` parts one after another.
    ///
    /// Every part divides by the normaliser of the whole batch, so the sum over parts and shards equals the large
    /// batch's gradient up to rounding.
    ///
    /// # Errors
    /// When the device fails, or when an operation cut the graph.
    pub fn step(
        &self,
        batch: &Batch,
        criterion: &Criterion,
        micro_batches: usize,
        seed: u64,
        step: usize,
    ) -> Result<Step> {
        let normalizer = criterion.normalizer(&Targets::Hard(&batch.labels), 0);
        let mut total = Step { gradients: Gradients::default(), loss: 0.0, correct: 0 };
        for part in cut(batch.labels.len(), micro_batches.clamp(1, batch.labels.len().max(1))) {
            let shards = cut(part.len(), self.workers.count().min(part.len()));
            let shards = shards.into_iter().map(|shard| part.start + shard.start..part.start + shard.end).collect();
            let results = self.workers.map(shards, |shard: Range<usize>| {
                let noise = Noise {
                    seed,
                    step: step as u64,
                    samples: batch.indices[shard.clone()].iter().map(|&i| i as u64).collect(),
                };
                let logits = self.learner.logits(&self.pixels(batch, shard.clone())?, Mode::Train(&noise))?;
                let labels = &batch.labels[shard];
                let loss = criterion.forward(&logits, &Targets::Hard(labels), normalizer)?;
                let gradients = Gradients::of(&loss, &self.params)?;
                Ok(Step { gradients, loss: f64::from(loss.to_scalar::<f32>()?), correct: correct(&logits, labels)? })
            })?;
            for result in results {
                total.gradients.add(result.gradients, &self.workers)?;
                total.loss += result.loss;
                total.correct += result.correct;
            }
        }
        Ok(total)
    }

    /// The logits of a batch without randomness or graph, row-major (n, classes).
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let n = batch.labels.len();
        let shards = if self.device.is_cpu() {
            cut(n, n.div_ceil(SCORING_SHARD).max(self.workers.count().min(n)))
        } else {
            cut(n, 1)
        };
        let rows = self.workers.map(shards, |shard| {
            self.scorer.logits(&self.pixels(batch, shard)?, Mode::Eval)?.flatten_all()?.to_vec1::<f32>()
        })?;
        Ok(rows.concat())
    }

    fn pixels(&self, batch: &Batch, shard: Range<usize>) -> Result<Tensor> {
        let image = 3 * self.image_size * self.image_size;
        let values = &batch.pixels[shard.start * image..shard.end * image];
        Tensor::from_slice(values, (shard.len(), 3, self.image_size, self.image_size), &self.device)
    }
}

fn correct(logits: &Tensor, labels: &[usize]) -> Result<usize> {
    let predicted = logits.detach().argmax(D::Minus1)?.to_dtype(DType::U32)?.to_vec1::<u32>()?;
    Ok(predicted.iter().zip(labels).filter(|(predicted, label)| **predicted as usize == **label).count())
}
