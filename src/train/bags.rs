//! The gradients of images that are cut into tiles, however many these are.
//!
//! The features of all tiles come first, a few tiles at a time and without a graph. They are pooled to those of the image,
//! and the backward pass of the loss ends at the features of the tiles. Then those tiles run again, a few at a time, of which
//! the pooling takes something; each begins its backward pass with the gradient of its features (gradient caching, Gao et
//! al. 2021). The sum is the gradient of one pass over all tiles, and the random layers draw the same in both passes.

use super::accumulator::GradientAccumulator;
use super::backprop::Backprop;
use super::step_metrics::{PendingMetrics, hits};
use super::step_options::{StepOptions, targets};
use crate::backbone::{ParamName, Params, Segment};
use crate::data::loader::Batch;
use crate::data::transform::Bags;
use crate::features::TILES_AT_ONCE;
use crate::model::{Classifier, Model};
use crate::nn::workers::cut;
use crate::nn::{Criterion, MaskKeys, Mode};
use crate::optim::gradients::Gradients;
use candle_core::{DType, Error, Result, Tensor, Var};

/// Tiles of an image have numbers of their own among the random masks, behind that of the image.
const TILES_OF_A_SAMPLE: u64 = 1 << 20;

/// A batch of bags on its way forward and backward.
pub(super) struct BagBackprop<'a> {
    /// The model.
    pub model: &'a Model,
    /// The layers with a graph, and without one.
    pub layers: (&'a Classifier, &'a Classifier),
    /// Whether blocks run again in the backward pass.
    pub checkpoints: bool,
    /// The images and their classes.
    pub batch: &'a Batch,
    /// Their tiles.
    pub bags: &'a Bags,
    /// The loss, and what its sum over the batch is divided by.
    pub loss: (&'a Criterion, f32),
    /// Which step it is.
    pub options: StepOptions<'a>,
}

impl BagBackprop<'_> {
    /// The gradients of the loss with respect to what is trainable in `params`, which the layers have as `seen`, and what the
    /// batch gave; none when a stop was requested.
    ///
    /// # Errors
    /// When the device fails, or an operation cut the graph.
    pub fn run(&self, params: &Params, seen: &Params) -> Result<Option<(Gradients, PendingMetrics)>> {
        let is_head = |name: &str| name.parse::<ParamName>().is_ok_and(|name| name.segment() == Segment::Head);
        let (of_head, of_tiles) = (params.restricted(is_head), params.restricted(|name| !is_head(name)));
        let [head, body] = [&of_head, &of_tiles].map(|params| GradientAccumulator::seen_as(params, seen));
        let features_only = (self.layers.0.clone().without_head(), self.layers.1.clone().without_head());
        let trains_body = of_tiles.trained().next().is_some();
        let (mut parts, mut metrics) = (0, PendingMetrics::default());
        for image in 0..self.bags.len() {
            if self.options.stop.is_some_and(|stop| stop.received().is_some()) {
                return Ok(None);
            }
            let all: Vec<usize> = (0..self.bags.tiles(image)).collect();
            let rows = self.few_at_a_time(&all, |_, tiles| {
                let inputs = self.pixels(image, tiles)?;
                features_only.1.features(&inputs, Mode::Train(&self.noise(image, tiles)))?.to_dtype(DType::F32)
            })?;
            let features = Var::from_tensor(&Tensor::cat(&rows, 0)?)?;
            let upstream = self.loss_backward(image, &features, &head, &mut metrics)?;
            if !trains_body {
                continue;
            }
            let taken: Vec<f32> = upstream.abs()?.sum(1)?.to_vec1()?;
            // A gradient that is not finite goes on, to be found; an image that gives none counts with its first tile.
            let mut used: Vec<usize> = (0..taken.len()).filter(|&tile| taken[tile] != 0.0).collect();
            if used.is_empty() {
                used.push(0);
            }
            let ran = self.few_at_a_time(&used, |part, tiles| {
                let positions: Vec<u32> = tiles.iter().map(|&tile| tile as u32).collect();
                let positions = Tensor::new(positions, upstream.device())?;
                let upstream = upstream.index_select(&positions, 0)?;
                let backprop = Backprop {
                    inputs: &self.pixels(image, tiles)?,
                    mode: Mode::Train(&self.noise(image, tiles)),
                    accumulator: &body,
                    part: parts + part,
                    loss: &|features| (features.to_dtype(DType::F32)? * &upstream)?.sum_all(),
                    // It is in the upstream gradient.
                    loss_scale: 1.0,
                };
                backprop.run(&features_only.0, self.checkpoints.then_some(&features_only.1)).map(|_| ())
            })?;
            parts += ran.len();
        }
        let mut sums = head.sums(self.bags.len())?;
        sums.extend(body.sums(parts)?);
        sums.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Some((Gradients::of_sums(sums), metrics)))
    }

    /// From the features of an image's tiles (T, w) to the gradient of the loss with respect to them; that of the head is
    /// accumulated.
    fn loss_backward(
        &self,
        image: usize,
        features: &Var,
        head: &GradientAccumulator<'_>,
        metrics: &mut PendingMetrics,
    ) -> Result<Tensor> {
        let keys = self.keys(vec![self.batch.indices[image] as u64]);
        let pooled = self.layers.0.of_tiles(&features.as_tensor().unsqueeze(0)?)?;
        let logits = self.layers.0.classify(&pooled, Mode::Train(&keys))?;
        let (criterion, normalizer) = self.loss;
        let loss = criterion.forward(&logits, &targets(self.batch, image..image + 1), normalizer)?;
        metrics.add(loss.detach(), hits(&logits, &self.batch.labels[image..=image])?);
        let mut store = (loss * self.options.loss_scale)?.backward()?;
        head.add(image, &mut store)?;
        let upstream = store.remove(features.as_tensor()).map(|upstream| upstream.detach());
        upstream.ok_or_else(|| Error::msg("the features of the tiles received no gradient"))
    }

    /// Applies `work` to some tiles of an image, with the number of the part, as many at a time as a step's images would be;
    /// results in their order.
    fn few_at_a_time<R: Send>(
        &self,
        tiles: &[usize],
        work: impl Fn(usize, &[usize]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let workers = &self.model.workers;
        let least = tiles.len().div_ceil(TILES_AT_ONCE).max(self.options.micro_batches);
        let rounds = workers.rounds(tiles.len(), self.model.spec().vit.tokens()).max(least).min(tiles.len());
        let mut results = Vec::new();
        for round in cut(tiles.len(), rounds) {
            let tiles = &tiles[round];
            let shards = cut(tiles.len(), workers.count().min(tiles.len()));
            let numbered = (results.len()..).zip(shards).collect();
            results.extend(
                workers.map(numbered, |(part, shard): (usize, std::ops::Range<usize>)| work(part, &tiles[shard]))?,
            );
        }
        Ok(results)
    }

    /// The pixels of some tiles of an image on the device.
    fn pixels(&self, image: usize, tiles: &[usize]) -> Result<Tensor> {
        let [channels, height, width] = self.model.spec().vit.image_size.shape();
        let pixels = self.bags.pixels(image, tiles).map_err(candle_core::Error::wrap)?;
        Tensor::from_vec(pixels, (tiles.len(), channels, height, width), self.model.device())
    }

    fn noise(&self, image: usize, tiles: &[usize]) -> MaskKeys {
        let first = (self.batch.indices[image] as u64 + 1) * TILES_OF_A_SAMPLE;
        self.keys(tiles.iter().map(|&tile| first + tile as u64).collect())
    }

    fn keys(&self, samples: Vec<u64>) -> MaskKeys {
        MaskKeys { seed: self.options.seed, step: self.options.step as u64, samples }
    }
}
