//! Features of all images of a data set: what `probe`, `tsne` and a head's start read.

use super::session::Session;
use crate::backbone::{Activations, Params, Readout};
use crate::cache::CacheUse;
use crate::data::transform::Normalization;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::features::Images;
use crate::linalg::Matrix;
use crate::report::Console;
use std::sync::Arc;

/// The features of every sample of a data set, in its order.
pub struct FeatureSet {
    values: Vec<f32>,
    width: usize,
    /// The samples.
    pub dataset: Arc<Dataset>,
    /// How the cache served.
    pub usage: CacheUse,
}

/// The rows of some samples, with their classes.
pub struct LabelledFeatures {
    /// Row-major features.
    pub values: Vec<f32>,
    /// The class of each row.
    pub labels: Vec<usize>,
    /// The sample of each row.
    pub samples: Vec<usize>,
    width: usize,
}

impl LabelledFeatures {
    /// Features (n, `width`), row-major, of n samples of a data set.
    pub fn new(values: Vec<f32>, width: usize, dataset: &Dataset, samples: Vec<usize>) -> Self {
        let labels = samples.iter().map(|&sample| dataset.samples[sample].label).collect();
        Self { values, labels, samples, width }
    }

    /// The features.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.width)
    }
}

impl FeatureSet {
    /// Computes the features of `readout`, or finds them in the cache, by a backbone of these parameters with their content
    /// address.
    ///
    /// # Errors
    /// A usage error when pixels depend on their batch; data errors of files that changed under way; when features are
    /// not finite.
    pub fn compute(
        session: &Session,
        backbone: (&Params, &str),
        readout: Readout,
        images: &Images,
        console: &Console,
    ) -> Result<Self> {
        Self::at(session, backbone, Activations::Features(readout), images, console)
    }

    /// The same of other activations.
    ///
    /// # Errors
    /// As [`FeatureSet::compute`].
    pub fn at(
        session: &Session,
        (params, weights): (&Params, &str),
        activations: Activations,
        images: &Images,
        console: &Console,
    ) -> Result<Self> {
        let preprocess = *images.pipeline.preprocess();
        if preprocess.normalization == Normalization::Batch {
            let message = "preprocess.normalize = \"batch\" makes an image's features depend on its neighbours";
            let hint = "set preprocess.normalize to \"dataset\" or \"robust\" for features that are computed once";
            return Err(Error::usage_hint(message, hint));
        }
        let extractor = session.extractor(params, activations)?;
        let positions: Vec<usize> = (0..images.dataset.samples.len()).collect();
        let progress = console.progress(positions.len() as u64, "features");
        let rows = images.rows(
            &positions,
            0,
            &extractor,
            &session.identity(activations, &preprocess).of_weights(weights),
            &session.cache(),
            &mut |images| {
                progress.inc(images as u64);
                Ok(())
            },
        )?;
        progress.finish();
        rows.warnings.iter().for_each(|warning| console.warn(warning));
        let features = Self {
            values: rows.gather(&positions),
            width: rows.width(),
            dataset: Arc::clone(&images.dataset),
            usage: rows.usage,
        };
        features.matrix().check_finite(|i| features.dataset.samples[i].name.clone())?;
        Ok(features)
    }

    /// All features.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.width)
    }

    /// The same images with what `map` makes of their features: row-major values and how many there are of each image.
    ///
    /// # Errors
    /// Those of `map`.
    pub fn mapped(&self, map: impl FnOnce(Matrix<'_>) -> Result<(Vec<f32>, usize)>) -> Result<Self> {
        let (values, width) = map(self.matrix())?;
        Ok(Self { values, width, dataset: Arc::clone(&self.dataset), usage: self.usage })
    }

    /// Those of the samples in some splits, in the order of the splits.
    pub fn of(&self, splits: &[Split]) -> LabelledFeatures {
        let samples: Vec<usize> = splits.iter().flat_map(|&split| self.dataset.indices(split)).collect();
        LabelledFeatures::new(self.matrix().select(&samples), self.width, &self.dataset, samples)
    }
}
