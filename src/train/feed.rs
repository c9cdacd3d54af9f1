//! Images for the loop: which samples, in which order, decoded and prepared ahead of need.

use super::trainer::Trainer;
use crate::data::loader::{Loader, LoaderOptions, epoch_order};
use crate::data::transform::Pipeline;
use crate::data::{Dataset, Split};
use crate::error::Result;
use std::sync::Arc;

/// The images of a run.
pub struct Feed {
    /// All samples.
    pub dataset: Arc<Dataset>,
    /// With augmentation.
    pub training: Arc<Pipeline>,
    /// Without.
    pub evaluation: Arc<Pipeline>,
    /// Seed of the order of training images.
    pub seed: u64,
    /// Images a batch.
    pub batch_size: usize,
    /// Decoding threads.
    pub threads: usize,
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

impl Feed {
    /// Number of samples of a split.
    pub fn len(&self, split: Split) -> usize {
        self.dataset.samples.iter().filter(|sample| sample.split == split).count()
    }

    /// Batches of the training images in the order of `epoch` (from 0), from batch `first_batch` on.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn train(&self, epoch: usize, first_batch: usize) -> Result<Loader> {
        let samples = self.dataset.indices(Split::Train);
        let order = epoch_order(self.seed, epoch as u64, samples.len());
        let order: Vec<usize> = order.into_iter().map(|position| samples[position]).collect();
        self.load(&order, &self.training, epoch, first_batch)
    }

    /// Scores every sample of a split, in the order of the data set; `progress` hears of each batch's size.
    ///
    /// # Errors
    /// Data errors of files that changed under way.
    pub fn score(&self, trainer: &Trainer, split: Split, progress: &mut dyn FnMut(usize)) -> Result<Scored> {
        let mut scored = Scored::default();
        for batch in self.load(&self.dataset.indices(split), &self.evaluation, 0, 0)? {
            let batch = batch?;
            scored.logits.extend(trainer.logits(&batch)?);
            progress(batch.labels.len());
            scored.labels.extend(batch.labels);
            scored.indices.extend(batch.indices);
        }
        Ok(scored)
    }

    fn load(&self, order: &[usize], pipeline: &Arc<Pipeline>, epoch: usize, first_batch: usize) -> Result<Loader> {
        let options =
            LoaderOptions { batch_size: self.batch_size, threads: self.threads, first_batch, epoch: epoch as u64 };
        Loader::new(Arc::clone(&self.dataset), order, Arc::clone(pipeline), options)
    }
}
