//! The model in training: gradients of a batch and logits of a batch, each sharded over the workers.

use super::anchor::Anchor;
use super::classifier::{Classifier, Form};
use super::directions::Directions;
use super::gathering::Gathering;
use super::gradients::Gradients;
use super::pass::{Outcome, Pass};
use super::readout::{Numbers, Readout, hits};
use crate::backbone::{Params, Stage, VitSpec};
use crate::config::Precision;
use crate::data::loader::Batch;
use crate::nn::{Criterion, Mode, Noise, Targets};
use crate::strategy::Plan;
use crate::system::signals::StopRequest;
use crate::system::workers::{Workers, cut};
use crate::text::ContextPrompts;
use candle_core::{DType, Device, Result, Tensor};
use std::ops::Range;

/// How the gradients are computed: what it costs, not what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Computation {
    /// Type in which products run; the parameters, the residual stream, norms, softmax and loss stay in f32.
    pub precision: Precision,
    /// Keep only what enters each block, and run the block again on the way back.
    pub checkpoint_blocks: bool,
}

/// Parameters, the layers over them, and the workers that run them.
pub struct Trainer {
    /// All parameters; the optimiser writes to the learning ones.
    pub params: Params,
    /// The workers.
    pub workers: Workers,
    spec: VitSpec,
    plan: Plan,
    form: Form,
    computation: Computation,
    anchor: Option<Anchor>,
    scorer: Classifier,
    /// Set when the head follows from learnt words.
    directions: Option<Directions>,
    device: Device,
    /// Of one image's input.
    shape: Vec<usize>,
}

/// Which step it is, and how it is cut.
#[derive(Debug, Clone, Copy)]
pub struct StepOptions<'a> {
    /// Seed of the random layers.
    pub seed: u64,
    /// The optimiser step.
    pub step: usize,
    /// Parts that are computed one after another.
    pub micro_batches: usize,
    /// Factor on the loss on the way back, against underflow in f16; the gradients come without it.
    pub loss_scale: f64,
    /// Where a signal may ask to leave the step before its next part.
    pub stop: Option<&'a StopRequest>,
    /// The inputs of the whole batch where they are on the device already; else those of the batch are sent, in parts.
    pub inputs: Option<&'a Tensor>,
}

impl StepOptions<'_> {
    /// The whole batch at once, without a factor.
    pub fn new(seed: u64, step: usize) -> Self {
        Self { seed, step, micro_batches: 1, loss_scale: 1.0, stop: None, inputs: None }
    }
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
    /// Euclidean norm of the gradients; not finite when one of them is not.
    pub norm: f64,
}

/// The layers of one step.
struct Learner {
    graph: Classifier,
    /// Without a graph, when blocks are run twice.
    detached: Option<Classifier>,
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
        Ok(Self {
            scorer: Classifier::new(spec, &params.detached(), plan, form)?,
            shape: form.stage.shape(spec),
            spec: spec.clone(),
            plan: plan.clone(),
            form,
            computation: Computation::default(),
            anchor: None,
            directions: None,
            params,
            workers,
            device,
        })
    }

    /// The same model, computed another way.
    #[must_use]
    pub fn computed(mut self, computation: Computation) -> Self {
        self.computation = computation;
        self
    }

    /// The same model, over the same storage, in a phase of gradual unfreezing: only what learns in `epoch` (from 0) is
    /// learning. None when that is everything.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn learning(&self, epoch: usize) -> Result<Option<Self>> {
        let Some(plan) = self.plan.at(epoch) else { return Ok(None) };
        let params = self.params.restricted(|name| plan.get(name).is_some());
        Self::new(&self.spec, params, &plan, self.form, self.workers.clone(), self.device.clone())
            .map(|trainer| Some(trainer.computed(self.computation)))
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
        let merged = Self::new(&self.spec, params, &plan, self.form, self.workers, self.device)?;
        Ok(merged.computed(self.computation))
    }

    /// The same model with a cosine head whose directions follow from learnt words. These learn, and nothing else.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn prompted(mut self, prompts: ContextPrompts) -> Result<Self> {
        self.directions = Some(Directions::new(prompts, &mut self.params, &self.workers)?);
        self.scorer = Classifier::new(&self.spec, &self.params.detached(), &self.plan, self.form)?;
        Ok(self)
    }

    /// The prompts that its head follows from, if it does.
    pub fn prompts(&self) -> Option<&ContextPrompts> {
        self.directions.as_ref().map(Directions::prompts)
    }

    /// Number of learning values and of all values, those of a text tower among them.
    pub fn counts(&self) -> (usize, usize) {
        let (learning, all) = self.params.counts();
        (learning, all + self.prompts().map_or(0, |prompts| prompts.spec.parameters()))
    }

    /// What a checkpoint holds: the learning parameters and, where the head follows from learnt words, the head too, so
    /// that a saved model needs no text tower.
    ///
    /// # Errors
    /// When the device fails.
    pub fn saved(&self) -> Result<Params> {
        let Some(directions) = &self.directions else { return Ok(self.params.clone()) };
        directions.refresh(&self.params, &self.workers)?;
        self.params.clone().train_where(|name| self.plan.get(name).is_some() || name.starts_with("head."))
    }

    /// What its inputs are.
    pub fn stage(&self) -> Stage {
        self.form.stage
    }

    /// The gradients of the mean loss over a batch.
    ///
    /// Every part divides by the normaliser of the whole batch, so the sum over micro-batches and shards equals the large
    /// batch's gradient up to rounding.
    ///
    /// None when a stop was requested before a part was begun.
    ///
    /// # Errors
    /// When the device fails, or when an operation cut the graph.
    pub fn step(&self, batch: &Batch, criterion: &Criterion, options: StepOptions<'_>) -> Result<Option<Step>> {
        let whole = 0..batch.labels.len();
        let normalizer =
            criterion.normalizer(&targets(batch, whole), batch.soft_labels.len() / batch.labels.len().max(1));
        let directions = match &self.directions {
            Some(directions) => Some(directions.forward(&self.params, &self.workers)?),
            None => None,
        };
        let learner = self.learner()?;
        let (gathering, mut readout) = (Gathering::new(self.differentiated()), Readout::default());
        let (images, mut parts) = (batch.labels.len(), 0);
        let rounds = rounds(&self.workers, &self.spec, self.form.stage, images).max(options.micro_batches);
        for part in cut(images, rounds.clamp(1, images.max(1))) {
            if options.stop.is_some_and(|stop| stop.received().is_some()) {
                return Ok(None);
            }
            let shards = cut(part.len(), self.workers.count().min(part.len()));
            let shards = shards.into_iter().map(|shard| part.start + shard.start..part.start + shard.end);
            let shards: Vec<_> = (parts..).zip(shards).collect();
            parts += shards.len();
            let results = self.workers.map(shards, |(part, shard): (usize, Range<usize>)| {
                let noise = Noise {
                    seed: options.seed,
                    step: options.step as u64,
                    samples: batch.indices[shard.clone()].iter().map(|&i| i as u64).collect(),
                };
                let targets = targets(batch, shard.clone());
                let pass = Pass {
                    inputs: &match options.inputs {
                        Some(inputs) => inputs.narrow(0, shard.start, shard.len())?,
                        None => self.inputs(batch, shard.clone())?,
                    },
                    mode: Mode::Train(&noise),
                    gathering: &gathering,
                    part,
                    loss: &|logits| criterion.forward(logits, &targets, normalizer),
                    loss_scale: options.loss_scale,
                };
                let outcome = learner.run(&pass)?;
                let hits = hits(&outcome.logits, &batch.labels[shard])?;
                Ok((outcome, hits))
            })?;
            for (outcome, hits) in results {
                readout.add(outcome.loss, hits);
            }
        }
        let mut gradients = gathering.finish(parts)?;
        gradients.scale(1.0 / options.loss_scale);
        if let Some(directions) = directions {
            gradients = directions.back(&gradients, &self.params, &self.workers)?;
        }
        if let Some(anchor) = &self.anchor
            && let Some(pull) = anchor.pull(&self.params, &mut gradients)?
        {
            readout.add_loss(pull);
        }
        let Numbers { loss, correct, norm } = readout.read(&gradients, &self.workers)?;
        Ok(Some(Step { gradients, loss, correct, norm }))
    }

    /// Holds the head to where it starts, from now on.
    pub fn hold(&mut self, anchor: Anchor) {
        self.anchor = Some(anchor);
    }

    /// Puts the parameters back within their bounds; to be called after each update.
    ///
    /// # Errors
    /// When the device fails.
    pub fn constrain(&self) -> Result<()> {
        self.anchor.as_ref().map_or(Ok(()), |anchor| anchor.constrain(&self.params))
    }

    /// The parameters that a pass over images is differentiated with respect to.
    fn differentiated(&self) -> &Params {
        self.directions.as_ref().map_or(&self.params, |directions| &directions.params)
    }

    /// The layers over the parameters as they are now. They are built for each step: nothing is copied, but in half
    /// precision the weights are rounded anew.
    fn learner(&self) -> Result<Learner> {
        let half = match self.computation.precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(DType::BF16),
            Precision::F16 => Some(DType::F16),
        };
        let build = |params: &Params| match half {
            None => Classifier::new(&self.spec, params, &self.plan, self.form),
            Some(half) => Classifier::new(&self.spec, &params.with_products_in(half)?, &self.plan, self.form),
        };
        let detached =
            self.computation.checkpoint_blocks.then(|| build(&self.differentiated().detached())).transpose()?;
        Ok(Learner { graph: build(self.differentiated())?, detached })
    }

    /// The logits of a batch without randomness or graph, row-major (n, classes).
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        let rows = self.scored(batch, |inputs| values(&self.scorer.logits(inputs, Mode::Eval)?))?;
        Ok(rows.concat())
    }

    /// The features that the head reads, row-major (n, d), and the logits of a batch as of [`Trainer::logits`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn features_and_logits(&self, batch: &Batch) -> Result<(Vec<f32>, Vec<f32>)> {
        let rows = self.scored(batch, |inputs| {
            let features = self.scorer.features(inputs, Mode::Eval)?;
            Ok((values(&features)?, values(&self.scorer.classify(&features, Mode::Eval)?)?))
        })?;
        let (features, logits): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        Ok((features.concat(), logits.concat()))
    }

    /// What `score` makes of each shard of a batch.
    fn scored<R: Send>(&self, batch: &Batch, score: impl Fn(&Tensor) -> Result<R> + Sync) -> Result<Vec<R>> {
        if let Some(directions) = &self.directions {
            directions.refresh(&self.params, &self.workers)?;
        }
        let shards = self.workers.scoring_shards(batch.labels.len());
        self.workers.map(shards, |shard| score(&self.inputs(batch, shard)?))
    }

    /// The inputs of a shard on the device.
    fn inputs(&self, batch: &Batch, shard: Range<usize>) -> Result<Tensor> {
        let image: usize = self.shape.iter().product();
        let values = &batch.inputs[shard.start * image..shard.end * image];
        Tensor::from_slice(values, self.input_shape(shard.len()), &self.device)
    }

    /// Shape of the inputs of `n` images.
    pub(super) fn input_shape(&self, n: usize) -> Vec<usize> {
        std::iter::once(n).chain(self.shape.iter().copied()).collect()
    }

    /// Where it computes.
    #[cfg(feature = "cuda")]
    pub(super) fn device(&self) -> &Device {
        &self.device
    }
}

/// All values of a tensor, in f32.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

impl Learner {
    fn run(&self, pass: &Pass<'_>) -> Result<Outcome> {
        pass.run(&self.graph, self.detached.as_ref())
    }
}

/// Into how many parts, one after another, a batch of `images` is cut in any case, so that no worker keeps more
/// activations than it has use for.
pub fn rounds(workers: &Workers, spec: &VitSpec, stage: Stage, images: usize) -> usize {
    match stage {
        Stage::Features(_) => 1,
        Stage::Pixels | Stage::Block(_) => workers.rounds(images, spec.tokens()),
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
