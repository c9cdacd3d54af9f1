//! What frozen layers make of a run's images, computed once and replayed every epoch.

use super::session::Session;
use crate::backbone::{Activations, Readout, Segment, VitSpec};
use crate::cache::{FeatureRows, Key};
use crate::config::{NormalizeChoice, Settings, TilePool};
use crate::data::Split;
use crate::data::transform::augments;
use crate::error::{Error, Result};
use crate::features::{AugmentIdentity, OnBatch};
use crate::model::{BatchSource, FrozenInputs, FrozenRows, Model};
use crate::report::Console;
use crate::strategy::Plan;
use crate::system::signals::StopRequest;
use std::path::Path;
use std::sync::Arc;

/// The segment that training starts from: the first behind the frozen ones, or the embedding when nothing can be kept.
///
/// Nothing is kept when everything is trainable, when every epoch has new views (mixed images are), when an image's pixels
/// depend on its batch, or when the activations exceed the cache.
pub fn start(settings: &Settings, spec: &VitSpec, plan: &Plan, images: usize, console: &Console) -> Segment {
    let new_views = augments(&settings.augment) && settings.cache.views == 0;
    if plan.lowest == Segment::Embed || new_views || settings.preprocess.normalize == NormalizeChoice::Batch {
        return Segment::Embed;
    }
    if settings.train.mixes() {
        console.info("mixing    every step makes images that were never seen: frozen blocks run in every epoch");
        return Segment::Embed;
    }
    // Tiles have rows of features; activations of them all are too many to keep.
    if settings.preprocess.tiles.is_some()
        && (plan.lowest != Segment::Head || settings.model.tile_pool == TilePool::Attention)
    {
        return Segment::Embed;
    }
    let row: usize = plan.lowest.input_shape(spec, Readout::POOL).iter().product();
    let bytes = (row * 4 * images * views(settings).max(1)) as u64;
    if bytes > settings.cache.max_bytes && plan.lowest != Segment::Head {
        console.info(format!(
            "cache     activations of {} MiB exceed cache.max_bytes: frozen blocks run in every epoch",
            bytes >> 20
        ));
        return Segment::Embed;
    }
    plan.lowest
}

/// Augmented views that repeat; 0 when there are none.
pub fn views(settings: &Settings) -> usize {
    if augments(&settings.augment) { settings.cache.views } else { 0 }
}

/// Computes or finds the inputs of `source` where the model starts; none when those are the images.
///
/// # Errors
/// Data errors of files that changed under way; [`Error::Stopped`] after a signal.
pub fn inputs(
    session: &Session,
    model: &Model,
    source: &BatchSource,
    keys: &Arc<Vec<Key>>,
    (run, stop): (&Path, &StopRequest),
    console: &Console,
) -> Result<Option<FrozenInputs>> {
    let spec = model.spec();
    let Some(frozen) = Activations::before(spec.start, spec.vit.depth, spec.readout) else { return Ok(None) };
    let settings = &session.settings;
    let extractor = model.extractor(frozen)?;
    let cache = session.cache();
    let preprocess = *source.evaluation.preprocess();
    let identity = session.identity(frozen, &preprocess);
    let views = views(settings);
    let train = source.dataset.indices(Split::Train);
    let rest: Vec<usize> = (0..source.dataset.samples.len())
        .filter(|&sample| views == 0 || source.dataset.samples[sample].split != Split::Train)
        .collect();
    let progress = console.progress((rest.len() + views * train.len()) as u64, "frozen layers");
    let mut watch = |images: usize| {
        progress.inc(images as u64);
        stop.received().map_or(Ok(()), |signal| Err(Error::Stopped { signal, run: Some(run.to_path_buf()) }))
    };
    let watch: OnBatch<'_> = &mut watch;
    let plain = session.images(&source.dataset, keys, &source.evaluation);
    let rows = plain.rows(&rest, 0, &extractor, &identity, &cache, watch)?;
    let mut inputs = FrozenInputs { evaluation: warned(rows, &rest, console), views: Vec::new() };
    let augmented = session.images(&source.dataset, keys, &source.training);
    let identity = identity.augmented(AugmentIdentity { settings: &settings.augment, seed: settings.run.seed });
    for view in 0..views {
        let rows = augmented.rows(&train, view as u64, &extractor, &identity, &cache, watch)?;
        inputs.views.push(warned(rows, &train, console));
    }
    progress.finish();
    Ok(Some(inputs))
}

fn warned(rows: FeatureRows, samples: &[usize], console: &Console) -> FrozenRows {
    rows.warnings.iter().for_each(|warning| console.warn(warning));
    FrozenRows::new(rows, samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::{Backbone, Params};
    use crate::config::testing::settings;
    use crate::experiment::head::{self, HeadPlan};
    use crate::report::Verbosity;

    #[test]
    fn training_starts_where_the_frozen_layers_end_unless_nothing_can_be_kept() {
        let spec = Backbone::describe("builtin:vit-mini", None).unwrap();
        let starts_at = |sets: &[&str]| {
            let settings = settings(sets);
            let head = (head::kind(false), Readout::POOL, 3);
            let head = HeadPlan::new(&settings, (&spec, &Params::default()), head, None).unwrap();
            start(&settings, &spec, &head.plan, 100, &Console::new(Verbosity::Quiet, false))
        };
        let features = Segment::Head;
        assert_eq!(starts_at(&["strategy.kind=frozen"]), features);
        assert_eq!(starts_at(&["strategy.kind=full"]), Segment::Embed);
        let partial = ["strategy.kind=partial", "strategy.blocks=2"];
        assert_eq!(starts_at(&partial), Segment::Block(spec.depth - 2));
        assert_eq!(starts_at(&[partial[0], partial[1], "cache.max_bytes=1000"]), Segment::Embed);
        let augmented = "augment.preset=light";
        assert_eq!(starts_at(&["strategy.kind=frozen", augmented, "cache.views=0"]), Segment::Embed);
        assert_eq!(starts_at(&["strategy.kind=frozen", augmented, "cache.views=4"]), features);
        assert_eq!(starts_at(&["strategy.kind=frozen", "train.mixup=0.2"]), Segment::Embed);
        assert_eq!(starts_at(&["strategy.kind=frozen", "preprocess.tiles=true"]), features);
        assert_eq!(starts_at(&[partial[0], partial[1], "preprocess.tiles=true"]), Segment::Embed);
        assert_eq!(starts_at(&["strategy.kind=frozen", "preprocess.normalize=batch"]), Segment::Embed);
    }
}
