//! What a training run will take, in words, before it starts; and how its steps are cut so that it fits.

use super::device;
use super::frozen;
use super::head::visual_prompts;
use super::session::computation;
use crate::backbone::{Segment, VitSpec};
use crate::config::{Settings, TrainLength};
use crate::error::Result;
use crate::nn::workers::Workers;
use crate::report::Forecast;
use crate::strategy::Plan;
use crate::train::forecast::{ImageCounts, Layers, Texts, TileCounts, Workload, product_rate};
use crate::train::trainer::rounds;
use candle_core::Device;

/// Sizes of a training run that are known before anything runs.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Trainable values, and all values.
    pub parameters: (usize, usize),
    /// Images by their use.
    pub images: ImageCounts,
    /// Their tiles, if they are cut.
    pub tiles: Option<TileCounts>,
    /// Prompts that every step takes through a text tower.
    pub texts: Option<Texts>,
}

/// Estimates memory and time of a training run that starts at a segment, and chooses its micro-batches.
///
/// # Errors
/// When the device fails.
pub fn forecast(
    settings: &Settings,
    (spec, plan, start): (&VitSpec, &Plan, Segment),
    sizes: Sizes,
    (device, workers): (&Device, &Workers),
) -> Result<Forecast> {
    let train = &settings.train;
    let steps_per_epoch = sizes.images.train.div_ceil(train.batch_size).max(1);
    let batch_size = train.batch_size.min(sizes.images.train.max(1));
    let workload = Workload {
        spec,
        first_block: plan.first_block,
        start,
        parameters: sizes.parameters,
        copies: usize::from(train.ema.is_some()) + usize::from(train.sam.is_some()),
        passes: 1 + usize::from(train.sam.is_some()),
        images: sizes.images,
        tiles: sizes.tiles,
        batch_size,
        epochs: match train.length {
            TrainLength::Epochs(epochs) => epochs as f64,
            TrainLength::Steps(steps) => steps as f64 / steps_per_epoch as f64,
        },
        views: frozen::views(settings),
        workers: workers.count(),
        rounds: rounds(workers, spec, start, sizes.tiles.map_or(batch_size, |tiles| tiles.most)),
        layers: Layers::of(&device.location(), settings.run.precision),
        prompt_tokens: visual_prompts(settings).map_or(0, |prompts| prompts.tokens),
        adapters: plan.lora.is_some(),
        computation: computation(settings),
        texts: sizes.texts,
    };
    let free_bytes = device::free_bytes(device);
    let micro_batches = train.accumulate.unwrap_or_else(|| workload.micro_batches(free_bytes.unwrap_or(u64::MAX)));
    Ok(Forecast {
        memory: workload.memory(micro_batches),
        cache_bytes: workload.cache(),
        free_bytes,
        micro_batches,
        seconds: workload.seconds(product_rate(workers, device)?),
        work: workload.work(),
        fits: free_bytes.is_none_or(|free| workload.fits(micro_batches, free)),
        checkpointed_bytes: (!workload.computation.checkpoint_blocks).then(|| checkpointed(workload, micro_batches)),
    })
}

/// What the same training would take with gradient checkpointing.
fn checkpointed(mut workload: Workload<'_>, micro_batches: usize) -> u64 {
    workload.computation.checkpoint_blocks = true;
    workload.memory(micro_batches).total()
}
