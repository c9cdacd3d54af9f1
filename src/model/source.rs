//! Where batches come from: which samples, in which order, decoded and prepared ahead of need, or what frozen layers made
//! of them before.

use super::{Model, Outputs};
use crate::cache::{CacheUse, FeatureRows};
use crate::config::Sampler;
use crate::data::loader::{Batch, Loader, LoaderOptions};
use crate::data::sampler::epoch_order;
use crate::data::transform::{Bags, Pipeline, Tiles, View};
use crate::data::upload::ahead;
use crate::data::{Dataset, Destination, Split};
use crate::error::{DataError, Result};
use crate::features::TiledImages;
use std::collections::HashMap;
use std::sync::Arc;

/// The images of a run, as batches.
pub struct BatchSource {
    /// All samples.
    pub dataset: Arc<Dataset>,
    /// With augmentation.
    pub training: Arc<Pipeline>,
    /// Without.
    pub evaluation: Arc<Pipeline>,
    /// Which training images an epoch sees.
    pub sampler: Sampler,
    /// Seed of the order of training images.
    pub seed: u64,
    /// Images a batch.
    pub batch_size: usize,
    /// Decoding threads.
    pub threads: usize,
    /// Augmented views of an image before they repeat; 0 = every epoch has its own.
    pub views: usize,
    /// What frozen layers make of the images, when that is computed once.
    pub frozen: Option<FrozenInputs>,
}

/// Inputs computed once, in place of pixels.
pub struct FrozenInputs {
    /// The rows of images without augmentation.
    pub evaluation: FrozenRows,
    /// The rows of the training images, one set for each augmented view; empty when there is no augmentation.
    pub views: Vec<FrozenRows>,
}

/// Rows by sample.
pub struct FrozenRows {
    rows: FeatureRows,
    row_of: HashMap<usize, usize>,
}

impl FrozenRows {
    /// `rows` are those of the samples at `positions`.
    pub fn new(rows: FeatureRows, positions: &[usize]) -> Self {
        Self { rows, row_of: positions.iter().enumerate().map(|(row, &sample)| (sample, row)).collect() }
    }

    fn row(&self, sample: usize) -> &[f32] {
        self.row_of.get(&sample).map_or(&[], |&row| self.rows.row(row))
    }
}

impl FrozenInputs {
    /// The rows of a training view; the image as it is when there is no augmentation.
    fn augmented(&self, view: View) -> &[f32] {
        self.views.get(view.epoch as usize).unwrap_or(&self.evaluation).row(view.sample as usize)
    }

    /// The rows of an image as it is; of a training image of which only augmented views are kept, those of a view.
    fn plain(&self, view: View) -> &[f32] {
        let row = self.evaluation.row(view.sample as usize);
        if row.is_empty() { self.augmented(view) } else { row }
    }

    /// How the cache served.
    pub fn usage(&self) -> CacheUse {
        let mut usage = CacheUse::default();
        self.views.iter().chain(std::iter::once(&self.evaluation)).for_each(|frozen| usage += frozen.rows.usage);
        usage
    }
}

/// Logits of some samples.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scored {
    /// Row-major (n, classes).
    pub logits: Vec<f32>,
    /// The true class of each row.
    pub labels: Vec<usize>,
    /// The sample of each row.
    pub indices: Vec<usize>,
}

/// Batches in their order.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<Batch>> + Send + 'a>;

impl BatchSource {
    /// A source of images that are scored and not trained on.
    pub fn for_scoring(dataset: Arc<Dataset>, pipeline: Arc<Pipeline>, batch_size: usize, threads: usize) -> Self {
        let (training, evaluation) = (Arc::clone(&pipeline), pipeline);
        let (sampler, seed, views, frozen) = (Sampler::Shuffle, 0, 0, None);
        Self { dataset, training, evaluation, sampler, seed, batch_size, threads, views, frozen }
    }

    /// Number of samples of a split.
    pub fn len(&self, split: Split) -> usize {
        self.dataset.samples.iter().filter(|sample| sample.split == split).count()
    }

    /// Batches of the training images in the order of `epoch` (from 0), from batch `first_batch` on, for that destination.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn train(&self, epoch: usize, first_batch: usize, destination: Destination) -> Result<Batches<'_>> {
        let mut order = epoch_order(self.sampler, self.seed, epoch as u64, &self.dataset);
        if self.views > 0 {
            order.iter_mut().for_each(|view| view.epoch %= self.views as u64);
        }
        match (&self.frozen, self.training.preprocess().tiles) {
            (Some(frozen), _) => Ok(self.replay(|view| frozen.augmented(view), order, first_batch)),
            (None, Some(tiles)) => Ok(self.bags(tiles, order, first_batch)),
            (None, None) => self.load(&order, &self.training, first_batch, destination),
        }
    }

    /// Scores every sample of a split, in the order of the data set; `each` is given the number of images of each batch and
    /// the features that the head read of them, row-major.
    ///
    /// # Errors
    /// Data errors of files that changed under way.
    pub fn score(&self, model: &Model, split: Split, each: &mut dyn FnMut(usize, Vec<f32>)) -> Result<Scored> {
        let mut scored = Scored::default();
        let tiled = self.evaluation.preprocess().tiles.is_some();
        // A model that is trained has its adapters beside its weights.
        let merged = if tiled && model.spec().lora.is_some() { Some(model.merged()?) } else { None };
        let model = merged.as_ref().unwrap_or(model);
        let mut take = |batch: Batch, Outputs { features, logits }: Outputs| {
            each(batch.labels.len(), features);
            scored.logits.extend(logits);
            scored.labels.extend(batch.labels);
            scored.indices.extend(batch.indices);
        };
        let batches = self.plain(split, model)?;
        if tiled {
            for batch in batches {
                let batch = batch?;
                let outputs = model.classify(&batch.inputs, batch.labels.len())?;
                take(batch, outputs);
            }
            return Ok(scored);
        }
        let row = model.input_shape();
        ahead((model.device(), &row), batches, |batches| -> Result<()> {
            for sent in batches {
                let sent = sent?;
                let outputs = model.run_sent(&sent)?;
                take(sent.batch, outputs);
            }
            Ok(())
        })?;
        Ok(scored)
    }

    /// Batches of a split without augmentation, in the order of the data set.
    fn plain<'a>(&'a self, split: Split, model: &'a Model) -> Result<Batches<'a>> {
        let samples = self.dataset.indices(split);
        if let (Some(tiles), None) = (self.evaluation.preprocess().tiles, &self.frozen) {
            return self.tiled(tiles, &samples, model);
        }
        let order: Vec<View> = samples.into_iter().map(|sample| View { epoch: 0, sample: sample as u64 }).collect();
        match &self.frozen {
            Some(frozen) => Ok(self.replay(|view| frozen.plain(view), order, 0)),
            None => self.load(&order, &self.evaluation, 0, Destination::of(model.device())),
        }
    }

    /// Batches of images that are cut into tiles, for layers that are trained.
    fn bags(&self, tiles: Tiles, order: Vec<View>, first_batch: usize) -> Batches<'_> {
        self.batches(order, first_batch, move |_, indices| {
            let samples = || indices.iter().map(|&sample| &self.dataset.samples[sample]);
            let files = samples().map(|sample| sample.path.as_path());
            let bags = Bags::decode(&self.training, &tiles, files)
                .map_err(|(at, error)| DataError::bad_file(&self.dataset.samples[indices[at]].path, error))?;
            let labels = samples().map(|sample| sample.label).collect();
            Ok(Batch { bags: Some(bags), labels, indices, ..Batch::default() })
        })
    }

    /// What `batch` makes of the views of each batch and of the numbers of their images.
    fn batches<'a>(
        &self,
        order: Vec<View>,
        first: usize,
        batch: impl Fn(&[View], Vec<usize>) -> Result<Batch> + Send + 'a,
    ) -> Batches<'a> {
        let size = self.batch_size.max(1);
        let count = order.len().div_ceil(size);
        Box::new((first..count).map(move |index| {
            let views = &order[index * size..((index + 1) * size).min(order.len())];
            batch(views, views.iter().map(|view| view.sample as usize).collect())
        }))
    }

    /// Batches of the features by which a model's head knows images that are cut into tiles.
    fn tiled<'a>(&'a self, tiles: Tiles, samples: &[usize], model: &'a Model) -> Result<Batches<'a>> {
        let extractor = model.extractor(model.read())?;
        let groups: Vec<Vec<usize>> = samples.chunks(self.threads.max(1)).map(<[usize]>::to_vec).collect();
        Ok(Box::new(groups.into_iter().map(move |indices| {
            let images = TiledImages { extractor: &extractor, pipeline: &self.evaluation, tiles };
            let labels = indices.iter().map(|&sample| self.dataset.samples[sample].label).collect();
            let inputs = images.rows_by(&self.dataset, &indices, |bag| model.row_of(&images, bag))?;
            Ok(Batch { inputs, labels, indices, ..Batch::default() })
        })))
    }

    fn load(
        &self,
        order: &[View],
        pipeline: &Arc<Pipeline>,
        first_batch: usize,
        destination: Destination,
    ) -> Result<Batches<'_>> {
        let options = LoaderOptions { batch_size: self.batch_size, threads: self.threads, first_batch, destination };
        Ok(Box::new(Loader::new(Arc::clone(&self.dataset), order, Arc::clone(pipeline), options)?))
    }

    /// Batches of rows at hand.
    fn replay<'a>(
        &'a self,
        row: impl Fn(View) -> &'a [f32] + Send + 'a,
        order: Vec<View>,
        first_batch: usize,
    ) -> Batches<'a> {
        self.batches(order, first_batch, move |views, indices| {
            Ok(Batch {
                inputs: views.iter().flat_map(|&view| row(view)).copied().collect(),
                labels: indices.iter().map(|&sample| self.dataset.samples[sample].label).collect(),
                indices,
                ..Batch::default()
            })
        })
    }
}
