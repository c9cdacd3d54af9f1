//! Features of images: the outputs of frozen layers, computed once and kept in the cache.

mod evidence;
mod extractor;
mod identity;
mod moments;
mod reference;
pub mod table;
mod tiles;
mod writer;

pub use evidence::{EvidenceGrid, Region};
pub use extractor::{Extractor, ImageRollout, Looked};
pub use identity::{AugmentIdentity, Identity, image_key};
pub use moments::Moments;
pub use reference::{Distance, ReferenceRecord, ReferenceSet, passing_distance, spread};
pub use tiles::{LookedBag, TILES_AT_ONCE, TiledImages};
pub use writer::{FeatureFormat, FeatureWriter};

use crate::cache::{Cache, FeatureRows, Key};
use crate::data::loader::{Batch, Loader, LoaderOptions};
use crate::data::transform::Pipeline;
use crate::data::transform::View;
use crate::data::upload::ahead;
use crate::data::{Dataset, Destination};
use crate::error::Result;
use crate::linalg::Matrix;
use std::sync::Arc;

/// Called after each batch with its number of images; an error stops the computation.
pub type OnBatch<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// The images features are computed from.
#[derive(Clone)]
pub struct Images {
    /// All samples.
    pub dataset: Arc<Dataset>,
    /// From file to pixels.
    pub pipeline: Arc<Pipeline>,
    /// Content address of each sample of the data set.
    pub keys: Arc<Vec<Key>>,
    /// Images per batch.
    pub batch_size: usize,
    /// Decoding threads.
    pub threads: usize,
}

impl Images {
    /// The rows of the samples at `positions`, in that order, from the cache where it has them. `view` is the augmented
    /// view, 0 without augmentation. Memory is bounded by the batch, apart from what the cache cannot hold.
    ///
    /// # Errors
    /// Data errors of files that changed meanwhile; when values are not finite; those of `on_batch`.
    pub fn rows(
        &self,
        positions: &[usize],
        view: u64,
        extractor: &Extractor,
        identity: &Identity<'_>,
        cache: &Cache,
        on_batch: OnBatch<'_>,
    ) -> Result<FeatureRows> {
        let keys: Vec<Key> = positions.iter().map(|&i| identity.row_key(&self.keys[i], view, i as u64)).collect();
        let width = extractor.width();
        cache.rows(&identity.namespace(), width, &keys, |missing, sink| {
            if let Some(tiles) = self.pipeline.preprocess().tiles {
                let images = TiledImages { extractor, pipeline: &self.pipeline, tiles };
                for some in missing.chunks(self.threads.max(1)) {
                    let samples: Vec<usize> = some.iter().map(|&position| positions[position]).collect();
                    let rows = images.rows(&self.dataset, &samples)?;
                    Matrix::new(&rows, width).check_finite(|i| self.dataset.samples[samples[i]].name.clone())?;
                    rows.chunks_exact(width).try_for_each(&mut *sink)?;
                    on_batch(samples.len())?;
                }
                return Ok(());
            }
            let samples = missing.iter().map(|&position| positions[position]);
            self.each_batch(samples, view, extractor, |batch, rows| {
                Matrix::new(&rows, width).check_finite(|i| self.dataset.samples[batch.indices[i]].name.clone())?;
                rows.chunks_exact(width).try_for_each(&mut *sink)?;
                on_batch(batch.labels.len())
            })
        })
    }

    /// Gives `each` batch of some samples, of an augmented view, with the rows that the extractor makes of it.
    fn each_batch(
        &self,
        samples: impl Iterator<Item = usize>,
        view: u64,
        extractor: &Extractor,
        mut each: impl FnMut(&Batch, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let order: Vec<View> = samples.map(|sample| View { epoch: view, sample: sample as u64 }).collect();
        let (device, row) = (&extractor.device, extractor.input_shape());
        let destination = Destination::of(device);
        let options = LoaderOptions { batch_size: self.batch_size, threads: self.threads, first_batch: 0, destination };
        let batches = Loader::new(Arc::clone(&self.dataset), &order, Arc::clone(&self.pipeline), options)?;
        ahead((device, &row), batches, |batches| {
            for sent in batches {
                let sent = sent?;
                each(&sent.batch, extractor.rows(&sent)?)?;
            }
            Ok(())
        })
    }
}
