//! What a run remembers of its training images, so that images unlike them are recognised.

use super::features::{FeatureSet, LabelledFeatures};
use super::session::Session;
use crate::backbone::{Readout, Segment};
use crate::cache::Key;
use crate::data::transform::Normalization;
use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::features::{ReferenceRecord, ReferenceSet, passing_distance, spread};
use crate::linalg::Matrix;
use crate::model::{BatchSource, Model};
use crate::report::{Console, percent};
use crate::strategy::Plan;
use crate::system::shown::{counted, part_of};
use std::path::Path;
use std::sync::Arc;

/// The file in a run directory.
pub const FILE: &str = "known.safetensors";

/// The features of the training and of the validation images.
pub struct ReferenceFeatures {
    train: LabelledFeatures,
    val: LabelledFeatures,
}

impl ReferenceFeatures {
    /// Those among the features of all images.
    pub fn among(features: &FeatureSet) -> Self {
        Self { train: features.of(&[Split::Train]), val: features.of(&[Split::Val]) }
    }

    /// Those of a trained model: from the cache where its backbone was never trained, else by one more pass over the
    /// training images; `val_features` are what its head read of the validation images when these were scored.
    ///
    /// # Errors
    /// Data errors of files that changed under way.
    pub fn by(
        model: &Model,
        val_features: Vec<f32>,
        session: &Session,
        plan: &Plan,
        (source, keys): (&BatchSource, &Arc<Vec<Key>>),
        console: &Console,
    ) -> Result<Self> {
        let frozen = matches!(plan.lowest, Segment::Head);
        if frozen && source.evaluation.preprocess().normalization != Normalization::Batch {
            let images = session.images(&source.dataset, keys, &source.evaluation);
            let backbone = (&model.params, session.backbone.sha256.as_str());
            let features = FeatureSet::compute(session, backbone, Readout::POOL, &images, console)?;
            return Ok(Self::among(&features));
        }
        let progress = console.progress(source.len(Split::Train) as u64, "features of known images");
        let mut train_features = Vec::new();
        source.score(model, Split::Train, &mut |images, features| {
            train_features.extend(features);
            progress.inc(images as u64);
        })?;
        progress.finish();
        let width = Readout::POOL.width(&session.backbone.spec);
        let rows = |split, values| LabelledFeatures::new(values, width, &source.dataset, source.dataset.indices(split));
        Ok(Self { train: rows(Split::Train, train_features), val: rows(Split::Val, val_features) })
    }

    /// Writes the training images into a run directory, with the distance from which on an image is unknown; to be called
    /// only when `unknown.k` is not 0.
    ///
    /// # Errors
    /// When features are not finite; when the file cannot be written.
    fn write(&self, folder: &Path, session: &Session, dataset: &Dataset, console: &Console) -> Result<ReferenceRecord> {
        let settings = session.settings.unknown;
        let known = self.train.samples.len();
        let kept = spread(&self.train.labels, dataset.classes.len(), settings.images);
        if kept.len() < known {
            console.info(format!("unknown   keeps {} to compare with", part_of(kept.len(), known, "training image")));
        }
        let (all, name) = (self.train.matrix(), |&i: &usize| dataset.samples[self.train.samples[i]].name.clone());
        let features: Vec<f32> = kept.iter().flat_map(|&i| all.row(i)).copied().collect();
        let references = ReferenceSet::new(Matrix::new(&features, all.cols()), kept.iter().map(name).collect())?;
        let distances = session.workers.install(|| references.distances(self.val.matrix(), settings.k))?;
        let distances: Vec<f64> = distances.iter().map(|found| found.distance).collect();
        let chosen_on = distances.len();
        let passing = passing_distance(distances, settings.quantile);
        match passing {
            None => console.detail("no validation images: distances to the training images have no threshold"),
            Some((_, share)) if share < settings.quantile => console.detail(format!(
                "unknown   {} can show that {} of known images pass, not {}",
                counted(chosen_on, "validation image"),
                percent(share),
                percent(settings.quantile)
            )),
            Some(_) => {}
        }
        Ok(ReferenceRecord {
            k: settings.k.min(references.len()),
            images: references.len(),
            threshold: passing.map(|(distance, _)| distance),
            passing: passing.map(|(_, share)| share),
            chosen_on,
            sha256: references.write(&folder.join(FILE))?,
        })
    }
}

/// Remembers the training images in a run directory, unless the settings say not to.
///
/// # Errors
/// Those of `features`; when those are not finite; when the file cannot be written.
pub fn remember(
    folder: &Path,
    session: &Session,
    dataset: &Dataset,
    features: impl FnOnce() -> Result<ReferenceFeatures>,
    console: &Console,
) -> Result<Option<ReferenceRecord>> {
    if session.settings.unknown.k == 0 {
        return Ok(None);
    }
    features()?.write(folder, session, dataset, console).map(Some)
}
