//! The gradients of a model's loss over a batch, sharded over the workers.

use super::accumulator::GradientAccumulator;
use super::backprop::Backprop;
use super::bags::BagBackprop;
use super::regulariser::Regulariser;
use super::step_metrics::{PendingMetrics, StepMetrics, hits};
use super::step_options::{StepOptions, targets};
use crate::backbone::{Layer, Params, Segment, VitSpec};
use crate::config::Precision;
use crate::data::loader::Batch;
use crate::model::{Classifier, DirectionsGraph, DropRates, Model, half};
use crate::nn::workers::{Workers, cut};
use crate::nn::{Criterion, MaskKeys, Mode};
use crate::optim::gradients::Gradients;
use crate::strategy::Plan;
use candle_core::Result;
use std::ops::Range;

/// What training minimises.
#[derive(Debug, Clone, Default)]
pub struct Objective {
    /// The loss of logits.
    pub criterion: Criterion,
    /// A term beside the loss, and bounds that the parameters keep.
    pub regulariser: Option<Regulariser>,
    /// Rates of the random layers.
    pub drop: DropRates,
}

/// How the gradients are computed: what it costs, not what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Computation {
    /// Type in which products run; the parameters, the residual stream, norms, softmax and loss stay in f32.
    pub precision: Precision,
    /// Keep only what enters each block, and run the block again in the backward pass.
    pub checkpoint_blocks: bool,
}

/// Computes the gradients of a model.
#[derive(Clone, Copy)]
pub struct Trainer<'a> {
    /// The model; an optimiser writes to its trainable parameters.
    pub model: &'a Model,
    /// Which parameters are trainable, and when.
    pub plan: &'a Plan,
    /// What is minimised.
    pub objective: &'a Objective,
    /// How.
    pub computation: Computation,
}

/// What is trainable for a while.
pub struct Phase {
    /// All parameters over the model's storage, those trainable that are updated.
    pub params: Params,
    /// The lowest block among them; the depth when none is.
    first_block: usize,
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

impl Trainer<'_> {
    /// What is trainable in `epoch` (from 0), as blocks are unfrozen.
    pub fn phase(&self, epoch: usize) -> Phase {
        self.plan.at(epoch).map_or_else(|| self.whole(), |plan| self.restricted(&plan))
    }

    /// Everything that ever is trainable.
    pub fn whole(&self) -> Phase {
        self.restricted(self.plan)
    }

    fn restricted(&self, plan: &Plan) -> Phase {
        let params = self.model.params.restricted(|name| plan.get(name).is_some());
        Phase { params, first_block: plan.first_block }
    }

    /// The gradients of the mean loss over a batch, with respect to what is trainable in `phase`.
    ///
    /// Every part divides by the normaliser of the whole batch, so the sum over micro-batches and shards equals the large
    /// batch's gradient up to rounding.
    ///
    /// None when a stop was requested before a part was begun.
    ///
    /// # Errors
    /// When the device fails, or when an operation cut the graph.
    pub fn step(&self, phase: &Phase, batch: &Batch, options: StepOptions<'_>) -> Result<Option<Step>> {
        let Self { model, objective, .. } = self;
        let (workers, criterion) = (&model.workers, &objective.criterion);
        let images = batch.labels.len();
        let normalizer = criterion.normalizer(&targets(batch, 0..images), batch.soft_labels.len() / images.max(1));
        // With learnt words images are differentiated with respect to the directions, and these with respect to the words.
        let (params, words) = match model.directions() {
            Some(directions) => (directions.params(), Some(directions.forward(&phase.params, workers)?)),
            None => (&phase.params, None),
        };
        let seen = self.rounded(params)?;
        let (layers, detached) = self.layers(&seen, phase.first_block, batch.bags.is_some())?;
        let found = if let (Some(bags), Some(detached)) = (&batch.bags, &detached) {
            let (layers, checkpoints) = ((&layers, detached), self.computation.checkpoint_blocks);
            let loss = (criterion, normalizer);
            BagBackprop { model, layers, checkpoints, batch, bags, loss, options }.run(params, &seen)?
        } else {
            let accumulator = GradientAccumulator::seen_as(params, &seen);
            self.through_inputs((accumulator, &layers, detached.as_ref()), batch, normalizer, options)?
        };
        let Some((mut gradients, mut metrics)) = found else { return Ok(None) };
        gradients.scale(1.0 / options.loss_scale);
        if let Some(graph) = words {
            gradients = through_words(graph, &gradients, &phase.params, workers)?;
        }
        if let Some(regulariser) = &objective.regulariser
            && let Some(penalty) = regulariser.add_penalty(&phase.params, &mut gradients)?
        {
            metrics.add_loss(penalty);
        }
        let StepMetrics { loss, correct, norm } = metrics.read(&gradients, workers)?;
        Ok(Some(Step { gradients, loss, correct, norm }))
    }

    /// The gradients over a batch of inputs of one size, with the factor on the loss, and what it gave.
    fn through_inputs(
        &self,
        (accumulator, layers, detached): (GradientAccumulator<'_>, &Classifier, Option<&Classifier>),
        batch: &Batch,
        normalizer: f32,
        options: StepOptions<'_>,
    ) -> Result<Option<(Gradients, PendingMetrics)>> {
        let Self { model, objective, .. } = self;
        let (workers, criterion, images) = (&model.workers, &objective.criterion, batch.labels.len());
        let (mut metrics, mut parts) = (PendingMetrics::default(), 0);
        let rounds = rounds(workers, &model.spec().vit, model.spec().start, images).max(options.micro_batches);
        for part in cut(images, rounds.clamp(1, images.max(1))) {
            if options.stop.is_some_and(|stop| stop.received().is_some()) {
                return Ok(None);
            }
            let shards = cut(part.len(), workers.count().min(part.len()));
            let shards = shards.into_iter().map(|shard| part.start + shard.start..part.start + shard.end);
            let shards: Vec<_> = (parts..).zip(shards).collect();
            parts += shards.len();
            let results = workers.map(shards, |(part, shard): (usize, Range<usize>)| {
                let noise = MaskKeys {
                    seed: options.seed,
                    step: options.step as u64,
                    samples: batch.indices[shard.clone()].iter().map(|&i| i as u64).collect(),
                };
                let targets = targets(batch, shard.clone());
                let backprop = Backprop {
                    inputs: &match options.inputs {
                        Some(inputs) => inputs.narrow(0, shard.start, shard.len())?,
                        None => model.inputs(batch, shard.clone())?,
                    },
                    mode: Mode::Train(&noise),
                    accumulator: &accumulator,
                    part,
                    loss: &|logits| criterion.forward(logits, &targets, normalizer),
                    loss_scale: options.loss_scale,
                };
                let (logits, loss) = backprop.run(layers, detached)?;
                Ok((loss, hits(&logits, &batch.labels[shard])?))
            })?;
            results.into_iter().for_each(|(loss, hits)| metrics.add(loss, hits));
        }
        Ok(Some((accumulator.finish(parts)?, metrics)))
    }

    /// Puts the parameters back within their bounds; to be called after each update.
    ///
    /// # Errors
    /// When the device fails.
    pub fn constrain(&self) -> Result<()> {
        self.objective.regulariser.as_ref().map_or(Ok(()), |regulariser| regulariser.constrain(&self.model.params))
    }

    /// The parameters as they are now, where products run in half precision rounded anew for each step.
    fn rounded(&self, params: &Params) -> Result<Params> {
        half(self.computation.precision).map_or_else(|| Ok(params.clone()), |half| params.with_products_in(half))
    }

    /// The layers over the parameters, and with gradient checkpointing, or where they are `wanted`, those that go only
    /// forward. They are built for each step, which copies nothing.
    fn layers(&self, params: &Params, first_block: usize, wanted: bool) -> Result<(Classifier, Option<Classifier>)> {
        let build = |params: &Params| Classifier::new(self.model.spec(), params, self.objective.drop, first_block);
        let detached = (wanted || self.computation.checkpoint_blocks).then(|| build(&params.detached())).transpose()?;
        Ok((build(params)?, detached))
    }
}

/// Into how many parts, one after another, a batch of `images` is cut in any case, so that no worker keeps more
/// activations than it has use for.
pub fn rounds(workers: &Workers, spec: &VitSpec, start: Segment, images: usize) -> usize {
    match start {
        Segment::Head => 1,
        _ => workers.rounds(images, spec.tokens()),
    }
}

/// From the gradient of the directions to that of the learnt words in `params`.
fn through_words(
    graph: DirectionsGraph,
    gradients: &Gradients,
    params: &Params,
    workers: &Workers,
) -> Result<Gradients> {
    let accumulator = GradientAccumulator::new(params);
    let upstream = gradients.get(Layer::Head.weight())?;
    let parts = graph.backward(&upstream, workers, |part, product| accumulator.add(part, &mut product.backward()?))?;
    accumulator.finish(parts)
}
