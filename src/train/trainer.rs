//! The model in training: gradients of a batch and logits of a batch, each sharded over the workers.

use super::classifier::{Classifier, Form};
use super::gradients::Gradients;
use crate::backbone::{Params, Stage, VitSpec};
use crate::data::loader::Batch;
use crate::nn::{Criterion, Mode, Noise, Targets};
use crate::strategy::Plan;
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
    spec: VitSpec,
    plan: Plan,
    form: Form,
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
            shape: form.stage.shape(spec),
            spec: spec.clone(),
            plan: plan.clone(),
            form,
            params,
            workers,
            device,
        })
    }

    /// What its inputs are.
    pub fn stage(&self) -> Stage {
        self.form.stage
    }

    /// The same model, over the same storage, in a phase of gradual unfreezing: only what learns in `epoch` (from 0) is
    /// learning. None when that is everything.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn learning(&self, epoch: usize) -> Result<Option<Self>> {
        let Some(plan) = self.plan.at(epoch) else { return Ok(None) };
        let params = self.params.restricted(|name| plan.get(name).is_some());
        Self::new(&self.spec, params, &plan, self.form, self.workers.clone(), self.device.clone()).map(Some)
    }

    /// Folds the adapters into the weights that they adapt: the same model up to rounding, as it is scored and exported,
    /// in which nothing learns any more.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn merged(self) -> Result<Self> {
        let mut plan = self.plan.clone();
        let Some(lora) = plan.lora.take() else { return Ok(self) };
        let params = lora.merged(&self.params)?;
        Self::new(&self.spec, params, &plan, self.form, self.workers, self.device)
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
                let logits = self.learner.logits(&self.inputs(batch, shard.clone())?, Mode::Train(&noise))?;
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

fn correct(logits: &Tensor, labels: &[usize]) -> Result<usize> {
    let predicted = logits.detach().argmax(D::Minus1)?.to_dtype(DType::U32)?.to_vec1::<u32>()?;
    Ok(predicted.iter().zip(labels).filter(|(predicted, label)| **predicted as usize == **label).count())
}
