//! What a training run will take, before it starts: memory by its use, and time.
//!
//! The counts follow what is saved for the backward pass, in values a token; [`Layers`] tells how a block is computed. Of
//! one that runs on plain values it is what enters, q, k and v, the attended values, their sum with the input and the
//! hidden values of the MLP; of fused layers in a graph also both norms, both branches and the activated values. Where
//! each layer is a composition, it keeps more.

pub use super::tile_counts::TileCounts;
use super::trainer::Computation;
use crate::backbone::{Readout, Segment, VitSpec};
use crate::config::Precision;
use crate::features::TILES_AT_ONCE;
use crate::kernels;
use crate::nn::workers::Workers;
use crate::text::ContextPrompts;
use candle_core::{DType, Device, DeviceLocation, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The program, its libraries and the decoders, without data.
const PROGRAM_BYTES: u64 = 135 << 20;
/// A plot while it is drawn, in several times its size, and the page about the run.
const DRAWING_BYTES: u64 = 40 << 20;
/// Batches that are ready or under way beside the one in use.
const BATCHES_AHEAD: u64 = 3;
/// Images that a worker takes through frozen layers, or scores, at a time.
const SCORED_AT_ONCE: u64 = 8;
/// Resized images that are kept at the most, so that they are decoded once.
const MOST_KEPT: u64 = 256 << 20;
/// Share of the free memory that a plan may use: estimates are not exact, and others use the machine too.
const USABLE: f64 = 0.8;
/// Share of a matrix product's speed that whole steps reach, on the way through everything else.
const EFFICIENCY: f64 = 0.6;

/// How blocks are computed, which decides what they save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// On plain values, without a graph.
    Plain,
    /// As a graph of operations, each with a kernel of its own.
    Fused,
    /// As a graph of candle's operations.
    Composed,
}

impl Layers {
    /// As they are computed on a device with products in `precision`.
    pub fn of(device: &DeviceLocation, precision: Precision) -> Self {
        match device {
            DeviceLocation::Cpu if precision == Precision::F32 => Self::Plain,
            DeviceLocation::Cuda { .. } if !kernels::composed_only() => Self::Fused,
            _ => Self::Composed,
        }
    }
}

/// A training run, in numbers.
#[derive(Debug, Clone)]
pub struct Workload<'a> {
    /// The architecture.
    pub spec: &'a VitSpec,
    /// The lowest trainable block; the depth when none is.
    pub first_block: usize,
    /// The first segment that training runs; frozen layers before it run once.
    pub start: Segment,
    /// Trainable values, and all values.
    pub parameters: (usize, usize),
    /// Copies of the trainable values beside the parameters themselves: gradients are counted apart.
    pub copies: usize,
    /// Forward and backward passes of one step.
    pub passes: usize,
    /// Images by their use.
    pub images: ImageCounts,
    /// Their tiles, if they are cut.
    pub tiles: Option<TileCounts>,
    /// Images a step.
    pub batch_size: usize,
    /// Passes over the training images.
    pub epochs: f64,
    /// Views of a training image that frozen layers keep.
    pub views: usize,
    /// Workers that each run a part of the batch.
    pub workers: usize,
    /// Parts that a step is cut into in any case.
    pub rounds: usize,
    /// How blocks are computed.
    pub layers: Layers,
    /// Learnt tokens beside those of the image, in a block.
    pub prompt_tokens: usize,
    /// Whether trainable blocks have low-rank adapters.
    pub adapters: bool,
    /// How gradients are computed.
    pub computation: Computation,
    /// Prompts that every step takes through a text tower beside the images.
    pub texts: Option<Texts>,
}

/// How many images a training run has.
#[derive(Debug, Clone, Copy)]
pub struct ImageCounts {
    /// To train on.
    pub train: usize,
    /// Scored after each epoch.
    pub val: usize,
    /// Scored at the end.
    pub test: usize,
}

/// Prompts that go forward and backward through a frozen text tower.
#[derive(Debug, Clone, Copy)]
pub struct Texts {
    /// All their tokens.
    tokens: u64,
    /// Values that the tower keeps of a token on plain values, and over a graph.
    values: (u64, u64),
    /// Operations of the tower on all tokens.
    pub(super) operations: f64,
}

impl Texts {
    /// What learnt words take.
    pub fn of(prompts: &ContextPrompts) -> Self {
        let (spec, length) = (&prompts.spec, prompts.length());
        let tokens = (prompts.classes() * length) as f64;
        let (width, hidden) = (spec.width as f64, spec.mlp.hidden as f64);
        let block = 2.0 * tokens * (4.0 * width * width + 2.0 * width * hidden) + 4.0 * tokens * length as f64 * width;
        Self {
            tokens: tokens as u64,
            values: (
                (spec.depth * (6 * spec.width + spec.mlp.hidden)) as u64,
                (spec.depth * (10 * spec.width + 2 * spec.mlp.hidden)) as u64,
            ),
            operations: spec.depth as f64 * block,
        }
    }

    /// What the tower keeps of all tokens.
    fn bytes(self, layers: Layers) -> u64 {
        let (plain, graph) = self.values;
        4 * self.tokens * if layers == Layers::Plain { plain } else { graph }
    }
}

/// Bytes by their use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Parameters, and their copies in half precision.
    pub weights: u64,
    /// Gradients: their sum, and what the workers have found and not yet added to it.
    pub gradients: u64,
    /// Moments of the optimiser and other copies of the trainable values.
    pub optimizer: u64,
    /// What the forward pass saves for the backward pass, and the largest temporaries; or what scoring or drawing takes, where
    /// that is more.
    pub activations: u64,
    /// Batches, decoded images and kept activations of frozen layers.
    pub inputs: u64,
    /// The program itself.
    pub program: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.inputs + self.program
    }
}

impl Workload<'_> {
    /// The peak of a training run whose steps are cut into `micro_batches`.
    pub fn memory(&self, micro_batches: usize) -> Memory {
        let (trainable, all) = (self.parameters.0 as u64, self.parameters.1 as u64);
        let half = if self.computation.precision == Precision::F32 { 0 } else { 2 };
        let rounds = micro_batches.max(self.rounds);
        Memory {
            weights: all * (4 + half),
            gradients: trainable * 4 + self.found(rounds),
            optimizer: (2 + self.copies as u64) * trainable * 4,
            // One after another, where memory that was freed serves again.
            activations: self.step(rounds).max(self.scoring()).max(DRAWING_BYTES),
            inputs: self.inputs(),
            program: PROGRAM_BYTES,
        }
    }

    /// Bytes of gradients that workers hold beside the sum: those of a segment of the network, or without segments of all of
    /// it. The only part of a step is its sum.
    fn found(&self, rounds: usize) -> u64 {
        if self.workers * rounds == 1 {
            return 0;
        }
        let segments = self.spec.depth - self.first_block.min(self.spec.depth) + 1;
        let by_segments = self.layers == Layers::Plain || self.computation.checkpoint_blocks;
        self.workers as u64 * 4 * self.parameters.0 as u64 / if by_segments { segments as u64 } else { 1 }
    }

    /// The fewest micro-batches with which the training fits into `free` bytes; one image at a time when none does.
    pub fn micro_batches(&self, free: u64) -> usize {
        let cuts =
            std::iter::successors(Some(1), |&cut: &usize| Some(2 * cut)).take_while(|&cut| cut < self.batch_size);
        cuts.chain([self.batch_size]).find(|&cut| self.fits(cut, free)).unwrap_or(self.batch_size)
    }

    /// Whether steps cut into `micro_batches` fit into `free` bytes with room to spare.
    pub fn fits(&self, micro_batches: usize, free: u64) -> bool {
        self.memory(micro_batches).total() as f64 <= USABLE * free as f64
    }

    /// Bytes of activations of a step that is cut into so many parts.
    fn step(&self, rounds: usize) -> u64 {
        let texts = self.texts.map_or(0, |texts| texts.bytes(self.layers));
        // Images that are cut go one after another, their tiles in the parts of a step.
        let passes = self.tiles.filter(|_| self.start == Segment::Embed).map_or(self.batch_size, |tiles| tiles.most);
        passes.div_ceil(rounds.max(1)) as u64 * self.activations() + texts
    }

    /// Bytes of activations an image.
    fn activations(&self) -> u64 {
        let spec = self.spec;
        let (tokens, width) = (self.tokens(), spec.width as u64);
        if self.start == Segment::Head {
            return spec.features() as u64 * 16;
        }
        let trainable = (spec.depth - self.first_block.min(spec.depth)) as u64;
        let block = self.block_bytes();
        // Temporaries: the gradients beside a block in its backward pass, and what it computes again there.
        let mut temporary = 4 * (4 * width + self.fc1_width() + spec.mlp.hidden as u64);
        if self.layers == Layers::Fused {
            temporary += spec.attention.heads as u64 * self.score_bytes();
        }
        let kept = if self.computation.checkpoint_blocks { trainable * 4 * width + block } else { trainable * block };
        let embedding = if self.first_block == 0 && self.start == Segment::Embed {
            4 * ((3 * spec.patch.size * spec.patch.size) as u64 + 3 * width)
        } else {
            0
        };
        tokens * (kept + temporary + embedding)
    }

    /// Bytes of what the workers make of images on a pass that saves nothing: that through the frozen layers before
    /// training, that of the validation images, that of all images at the end.
    fn scoring(&self) -> u64 {
        let width = self.spec.width as u64;
        // What enters a block, q, k and v, the attended values, both sums and norms, and the hidden values twice.
        let block = 10 * width + self.fc1_width() + self.spec.mlp.hidden as u64;
        self.workers as u64 * SCORED_AT_ONCE * self.tokens() * block * 4
    }

    /// Tokens of an image, learnt ones included.
    fn tokens(&self) -> u64 {
        (self.spec.tokens() + self.prompt_tokens) as u64
    }

    /// Bytes that the backward pass through attention takes for a while on a GPU, for each token and head.
    fn score_bytes(&self) -> u64 {
        let head_dim = self.spec.width / self.spec.attention.heads.max(1);
        let tiled = !self.spec.positions.are_relative() && kernels::tensor_core_heads(head_dim).is_some();
        if tiled && self.product_bytes() < 4 {
            return 8; // two sums of each row in f32: the weights are never stored
        }
        // The weights, and the gradients of weights and scores.
        3 * self.product_bytes() * self.tokens()
    }

    /// Bytes of a value that a product takes and gives.
    fn product_bytes(&self) -> u64 {
        if self.computation.precision == Precision::F32 { 4 } else { 2 }
    }

    /// Bytes a token that a trainable block saves.
    fn block_bytes(&self) -> u64 {
        let spec = self.spec;
        let (width, fc1, hidden) = (spec.width as u64, self.fc1_width(), spec.mlp.hidden as u64);
        // What a factor or a norm at the end of a branch reads is kept too.
        let scaled = if spec.layer_scale || spec.norms.behind { 2 * width } else { 0 };
        // Of queries and keys that are normed, what they were before is kept.
        let unnormed = if spec.attention.qk_norm { 2 * width } else { 0 };
        // In a graph, learnt tokens join in a copy, and leave in one.
        let joined = if self.prompt_tokens > 0 { 2 * width } else { 0 };
        // Beside q, k and v, what an adapter adds to them and the sums; on plain values, what it drops is remembered.
        let (adapted, dropped) = if self.adapters { (6 * width, width) } else { (0, 0) };
        match self.layers {
            // What enters, q, k and v, the attended values, what enters the MLP, and its hidden values.
            Layers::Plain => 4 * (6 * width + scaled + unnormed + fc1 + dropped),
            // Both sums in f32. What products take and give, the norms among it, is shorter in half precision.
            Layers::Fused => {
                // RMS norms are compositions there: a square and a unit row each.
                let composed = if spec.norms.rms { 4 * width } else { 0 };
                let ends = if spec.norms.behind { 2 * width } else { 0 };
                4 * (2 * width + joined + unnormed + composed + ends)
                    + self.product_bytes() * (8 * width + adapted + fc1 + hidden)
            }
            // Norms keep centred, squared and normalised rows, products their sum without bias, attention its packed
            // copy and five matrices of scores.
            Layers::Composed => {
                let scores = 5 * spec.attention.heads as u64 * self.tokens();
                4 * (26 * width + scaled + unnormed + joined + adapted + 2 * fc1 + hidden + scores)
            }
        }
    }

    fn fc1_width(&self) -> u64 {
        self.spec.mlp.expanded() as u64
    }

    /// Bytes of one image's input.
    fn row(&self) -> u64 {
        self.start.input_shape(self.spec, Readout::POOL).iter().product::<usize>() as u64 * 4
    }

    /// Bytes on disk of what frozen layers make of the images; 0 when nothing is kept.
    pub fn cache(&self) -> u64 {
        let rows = self.images.train * self.views.max(1) + self.images.val + self.images.test;
        if self.start == Segment::Embed { 0 } else { self.row() * rows as u64 }
    }

    /// Bytes of batches and of what is kept of the images. Frozen layers read pixels too, once; kept rows are mapped, and
    /// what is read of them counts as memory of this process.
    fn inputs(&self) -> u64 {
        let image = self.spec.image_size.values() as u64;
        let images = (self.images.train + self.images.val + self.images.test) as u64;
        let batches = |row: u64| (BATCHES_AHEAD + 1) * self.batch_size as u64 * row;
        let kept = if self.start == Segment::Embed { 0 } else { batches(self.row()) + self.cache() };
        let pixels = match self.tiles {
            // Some tiles at a time as input, and the rows of all of an image.
            Some(tiles) => {
                let rows = tiles.most as u64 * self.spec.features() as u64 * 4;
                let decoded = if self.start == Segment::Embed { self.batch_size } else { tiles.decoded };
                decoded as u64 * tiles.image_bytes + TILES_AT_ONCE as u64 * 4 * image + rows
            }
            None => batches(4 * image) + (images * image).min(MOST_KEPT),
        };
        pixels + kept
    }

    /// Seconds on a machine whose products run at `rate` operations a second, without decoding.
    pub fn seconds(&self, rate: f64) -> f64 {
        self.work().of(self.epochs * self.steps_per_epoch()) / (EFFICIENCY * rate.max(1.0))
    }
}

/// Operations a second of matrix products of a usual shape on these workers and device: measured, since no table knows
/// the machine.
///
/// # Errors
/// When the device fails.
pub fn product_rate(workers: &Workers, device: &Device) -> Result<f64> {
    const SHAPE: (usize, usize, usize) = (256, 384, 1536);
    let (rows, inner, columns) = SHAPE;
    // On a CPU one product takes milliseconds, so two are enough; on a GPU launching one takes longer than computing it.
    let times = if device.is_cpu() { 2 } else { 8 };
    let x = Tensor::ones((rows, inner), DType::F32, device)?;
    let w = Tensor::ones((inner, columns), DType::F32, device)?;
    let run = |times: usize| -> Result<f64> {
        let clock = Instant::now();
        workers.map((0..workers.count()).collect(), |_| (0..times).try_for_each(|_| x.matmul(&w).map(|_| ())))?;
        device.synchronize()?;
        Ok(clock.elapsed().as_secs_f64())
    };
    run(1)?; // warms up
    // The quickest of three: what others do on the machine just now should not count.
    let seconds = run(times)?.min(run(times)?).min(run(times)?);
    let operations = 2.0 * (rows * inner * columns * times * workers.count()) as f64;
    Ok(operations / seconds.max(1e-9))
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
