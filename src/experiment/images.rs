//! The images of an experiment, each looked at once before anything is computed: bad files, duplicates, statistics,
//! fingerprint.

use super::session::{Session, decode_threads};
use crate::backbone::VitSpec;
use crate::config::{OnError, Settings};
use crate::data::Dataset;
use crate::data::audit::{Audit, AuditOptions, Examination, audit, examine};
use crate::data::transform::{Geometry, Normalization, Pipeline, Preprocess, Tiles};
use crate::error::{DataError, Result};
use crate::features::Images;
use crate::pixels::statistics::ChannelStatistics;
use crate::report::{Console, plots};
use crate::system::shown::{are, counted};
use crate::system::tables::write_csv;
use std::path::Path;
use std::sync::Arc;

/// A data set that is fit for training, and how its images become input.
pub struct CheckedImages {
    /// The usable samples.
    pub dataset: Arc<Dataset>,
    /// What is known of each.
    pub audit: Audit,
    /// The resolved preprocessing.
    pub preprocess: Preprocess,
}

/// Decodes every image and resolves the preprocessing.
///
/// # Errors
/// Data errors that list every bad file, and images that are in two splits at once.
pub fn check_images(session: &Session, dataset: Dataset, console: &Console) -> Result<CheckedImages> {
    check_images_with(&session.settings, &session.backbone.spec, dataset, console)
}

/// The same for a backbone that is not loaded.
///
/// # Errors
/// As [`check_images`].
pub fn check_images_with(
    settings: &Settings,
    spec: &VitSpec,
    mut dataset: Dataset,
    console: &Console,
) -> Result<CheckedImages> {
    // Before any image is read.
    let tiles = settings.preprocess.tiles.as_ref().map(|tiles| Tiles::resolve(tiles, spec.image_size)).transpose()?;
    let geometry = Geometry::resolve(&settings.preprocess, spec.image_size, &spec.input);
    let options = AuditOptions::new(&settings.data, geometry, tiles, decode_threads(settings));
    let progress = console.progress(dataset.samples.len() as u64, "checking images");
    let found = audit(&mut dataset, &options, &|done| progress.set(done as u64))?;
    progress.finish();
    found.warnings.iter().for_each(|warning| console.warn(warning));
    // Likenesses are for a person to judge, so they are not warnings.
    found.look_alikes.iter().for_each(|found| console.info(format!("look at   {found}")));
    let missing = plots::missing_letters(&dataset.classes);
    if !missing.is_empty() {
        let some: String = missing.iter().take(8).collect();
        console.info(format!(
            "no font of this system has {} letters of the class names ({some}): PNGs show their numbers, SVGs and pages the \
             letters; a font such as Noto Sans adds them",
            missing.len()
        ));
    }
    if !found.skipped.is_empty() {
        let n = found.skipped.len();
        console.warn(format!("{} cannot be used and {} left out; see skipped.csv", counted(n, "image"), are(n)));
    }
    let statistics: Option<&ChannelStatistics> =
        Normalization::needs_statistics(settings.preprocess.normalize).then_some(&found.statistics);
    Ok(CheckedImages {
        preprocess: Preprocess::resolve(&settings.preprocess, spec.image_size, &spec.input, statistics)?,
        dataset: Arc::new(dataset),
        audit: found,
    })
}

/// The images of a data set that are only scored, without those that cannot be used: they are looked at as closely as
/// those that are trained on, and what is known of them is given.
///
/// # Errors
/// A data error that lists every bad file, unless `data.on_error` says to leave them out.
pub fn usable_images(
    settings: &Settings,
    preprocess: &Preprocess,
    dataset: &Dataset,
    console: &Console,
) -> Result<Examination> {
    let Preprocess { geometry, tiles, .. } = *preprocess;
    let options = AuditOptions::new(&settings.data, geometry, tiles, decode_threads(settings));
    let progress = console.progress(dataset.samples.len() as u64, "checking images");
    let found = examine(dataset, &options, &|done| progress.set(done as u64))?;
    progress.finish();
    let bad = DataError::BadFiles { files: found.bad.clone() };
    match (&bad, settings.data.on_error) {
        (DataError::BadFiles { files }, _) if files.is_empty() => {}
        (_, OnError::Skip) => console.warn(format!("left out: {bad}")),
        (_, OnError::Fail) => return Err(bad.into()),
    }
    Ok(found)
}

impl CheckedImages {
    /// The images on their way to the backbone, without randomness.
    pub fn images(&self, session: &Session) -> Images {
        let pipeline = Arc::new(Pipeline::evaluation(self.preprocess, session.decode()));
        session.images(&self.dataset, &self.audit.keys, &pipeline)
    }

    /// Writes `skipped.csv` when files were left out.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_skipped(&self, path: &Path) -> Result<()> {
        if self.audit.skipped.is_empty() {
            return Ok(());
        }
        write_csv(path, |table| {
            table.write_record(["path", "reason"])?;
            let mut skipped = self.audit.skipped.iter();
            skipped.try_for_each(|bad| table.write_record([&bad.path.to_string_lossy(), bad.reason.as_str()]))
        })
    }
}
