//! What makes features: a config's pretrained backbone or a run's model, with the images of either.

use super::features::FeatureSet;
use super::images::check_images;
use super::open::Opened;
use super::saved::SavedRun;
use super::session::Session;
use crate::backbone::{Activations, Params, Readout};
use crate::cache::CacheUse;
use crate::config::Settings;
use crate::error::Result;
use crate::features::{FeatureWriter, Images};
use crate::report::Console;
use serde_json::json;
use std::path::Path;

/// Images whose features are in memory at a time when the cache cannot hold them.
const CHUNK: usize = 1024;

/// Images, and the layers that make features of them.
pub struct FeatureSource {
    /// The backbone on its device.
    pub session: Session,
    /// The images.
    pub images: Images,
    /// The features.
    pub readout: Readout,
    params: Params,
    /// Content address of the parameters.
    weights: String,
}

impl FeatureSource {
    /// The pretrained backbone and the images of a config.
    ///
    /// # Errors
    /// As [`Opened::new`] and [`check_images`], and those of `readout`.
    pub fn of_config(
        settings: Settings,
        readout: impl FnOnce(&Session) -> Result<Readout>,
        console: &Console,
    ) -> Result<Self> {
        let Opened { session, dataset } = Opened::new(settings, console)?;
        let readout = readout(&session)?;
        let images = check_images(&session, dataset, console)?.images(&session);
        let (params, weights) = (session.backbone.params.clone(), session.backbone.sha256.clone());
        Ok(Self { session, images, readout, params, weights })
    }

    /// The model and the images of a run.
    ///
    /// # Errors
    /// As [`SavedRun::images`].
    pub fn of_run(run: SavedRun, readout: Readout) -> Result<Self> {
        let images = run.images()?;
        Ok(Self { session: run.session, images, readout, params: run.model.params, weights: run.weights })
    }

    /// The features of all images.
    ///
    /// # Errors
    /// As [`FeatureSet::compute`].
    pub fn features(&self, console: &Console) -> Result<FeatureSet> {
        FeatureSet::compute(&self.session, (&self.params, &self.weights), self.readout, &self.images, console)
    }

    /// Writes the features of some samples into a file; gives the values of an image and how the cache served.
    ///
    /// # Errors
    /// Data errors of files that changed under way; when the file cannot be written, which then is not there.
    pub fn write(&self, path: &Path, samples: &[usize], console: &Console) -> Result<(usize, CacheUse)> {
        let session = &self.session;
        let activations = Activations::Features(self.readout);
        let extractor = session.extractor(&self.params, activations)?;
        let preprocess = *self.images.pipeline.preprocess();
        let identity = session.identity(activations, &preprocess).of_weights(&self.weights);
        let metadata = json!({"weights_sha256": self.weights, "architecture": session.backbone.spec.architecture});
        let mut writer = FeatureWriter::create(path, samples.len(), extractor.width(), &metadata)?;
        let progress = console.progress(samples.len() as u64, "features");
        let mut usage = CacheUse::default();
        for chunk in samples.chunks(CHUNK) {
            let rows = self.images.rows(chunk, 0, &extractor, &identity, &session.cache(), &mut |images| {
                progress.inc(images as u64);
                Ok(())
            })?;
            rows.warnings.iter().for_each(|warning| console.warn(warning));
            (0..rows.len()).try_for_each(|i| writer.append(rows.row(i)))?;
            usage += rows.usage;
        }
        progress.finish();
        writer.finish()?;
        Ok((extractor.width(), usage))
    }
}
