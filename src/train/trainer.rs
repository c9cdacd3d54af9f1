//! The model in training: gradients of a batch and logits of a batch, each sharded over the workers.

use super::classifier::{Classifier, Form};
use super::gradients::Gradients;
use crate::backbone::{Params, Stage, VitSpec};
use crate::data::loader::Batch;
use crate::nn::{Criterion, Mode, Noise, Targets};
use crate::strategy::Plan;
use crate::system::signals::StopRequest;
use crate::system::workers::{Workers, cut};
use candle_core::{D, DType, Device, Result, Tensor};
use std::ops::Range;

/// Parameters, the layers over them, and the workers that run them.
pub struct Trainer {
    /// All parameters; the optimiser writes to the learning ones.
    pub params: Params,
    /// The workers.
    pub workers: Workers,
    learner: Classifier,
    scorer: Classifier,
    device: Device,
    stage: Stage,
    /// Of one image's input.
    shape: Vec<usize>,
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
        form: Form,
        workers: Workers,
        device: Device,
    ) -> Result<Self> {
        let build = |params: &Params| Classifier::new(spec, params, plan, form);
        Ok(Self {
            learner: build(&params)?,
            scorer: build(&params.detached())?,
            stage: form.stage,
            shape: form.stage.shape(spec),
            params,
            workers,
            device,
        })
    }

    /// What its inputs are.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The gradients of the mean loss over a batch, computed in `micro_batches` parts one after another.
    ///
    /// Every part divides by the normaliser of the whole batch, so the sum over parts and shards equals the large
    /// batch's gradient up to rounding.
    ///
    /// None when a stop was requested before a part was begun.
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
        stop: &StopRequest,
    ) -> Result<Option<Step>> {
        let whole = 0..batch.labels.len();
        let normalizer =
            criterion.normalizer(&targets(batch, whole), batch.soft_labels.len() / batch.labels.len().max(1));
        let mut total = Step { gradients: Gradients::default(), loss: 0.0, correct: 0 };
        for part in cut(batch.labels.len(), micro_batches.clamp(1, batch.labels.len().max(1))) {
            if stop.received().is_some() {
                return Ok(None);
            }
            let shards = cut(part.len(), self.workers.count().min(part.len()));
            let shards = shards.into_iter().map(|shard| part.start + shard.start..part.start + shard.end).collect();
            let results = self.workers.map(shards, |shard: Range<usize>| {
                let noise = Noise {
                    seed,
                    step: step as u64,
                    samples: batch.indices[shard.clone()].iter().map(|&i| i as u64).collect(),
                };
                let logits = self.learner.logits(&self.inputs(batch, shard.clone())?, Mode::Train(&noise))?;
                let loss = criterion.forward(&logits, &targets(batch, shard.clone()), normalizer)?;
                let gradients = Gradients::of(&loss, &self.params)?;
                let correct = correct(&logits, &batch.labels[shard])?;
                Ok(Step { gradients, loss: f64::from(loss.to_scalar::<f32>()?), correct })
            })?;
            for result in results {
                total.gradients.add(result.gradients, &self.workers)?;
                total.loss += result.loss;
                total.correct += result.correct;
            }
        }
        Ok(Some(total))
    }

    /// The logits of a batch without randomness or graph, row-major (n, classes).
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let shards = self.workers.scoring_shards(batch.labels.len());
        let rows = self.workers.map(shards, |shard| {
            self.scorer.logits(&self.inputs(batch, shard)?, Mode::Eval)?.flatten_all()?.to_vec1::<f32>()
        })?;
        Ok(rows.concat())
    }

    fn inputs(&self, batch: &Batch, shard: Range<usize>) -> Result<Tensor> {
        let image: usize = self.shape.iter().product();
        let values = &batch.inputs[shard.start * image..shard.end * image];
        let shape: Vec<usize> = std::iter::once(shard.len()).chain(self.shape.iter().copied()).collect();
        Tensor::from_slice(values, shape, &self.device)
    }
}

/// What some samples of a batch should be classified as.
fn targets(batch: &Batch, samples: Range<usize>) -> Targets<'_> {
    if batch.soft_labels.is_empty() {
        return Targets::Hard(&batch.labels[samples]);
    }
    let classes = batch.soft_labels.len() / batch.labels.len();
    Targets::Soft(&batch.soft_labels[samples.start * classes..samples.end * classes])
}

fn correct(logits: &Tensor, labels: &[usize]) -> Result<usize> {
    let predicted = logits.detach().argmax(D::Minus1)?.to_dtype(DType::U32)?.to_vec1::<u32>()?;
    Ok(predicted.iter().zip(labels).filter(|(predicted, label)| **predicted as usize == **label).count())
}
