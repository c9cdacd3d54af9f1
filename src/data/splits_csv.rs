//! The file of a run that says which of its images is in which split.

use super::{Dataset, PixelSum, Split};
use crate::error::{DataError, Result};
use crate::system::digest::hex;
use crate::system::files::read_regular;
use crate::system::shown::Shown;
use crate::system::tables::write_csv;
use std::path::Path;

/// Writes which sample is in which split, one row per sample, sorted by name: `path,label,split,group,sha256,pixels`, and `mask`
/// where samples have masks. `keys` and `pixels` are the checksums of the files and of their pixels, in the order of samples.
///
/// The file is a manifest: [`Dataset::from_splits_csv`] reads it again.
///
/// # Errors
/// When the file cannot be written.
pub fn write_splits_csv(path: &Path, dataset: &Dataset, (keys, pixels): (&[[u8; 32]], &[PixelSum])) -> Result<()> {
    write_csv(path, |table| {
        let masked = dataset.samples.iter().any(|sample| sample.mask.is_some());
        let columns = ["path", "label", "split", "group", "sha256", "pixels"];
        table.write_record(columns.into_iter().chain(masked.then_some("mask")))?;
        dataset.samples.iter().enumerate().try_for_each(|(index, sample)| {
            let label = sample.kind.as_ref().or(dataset.classes.get(sample.label)).map_or("", String::as_str);
            let group = sample.group.as_deref().unwrap_or_default();
            let sum = keys.get(index).map(|key| hex(key)).unwrap_or_default();
            let pixels = pixels.get(index).map(|sum| sum.text()).unwrap_or_default();
            let mask = sample.mask.as_ref().map_or("", |mask| &mask.name);
            let row = [&sample.name, label, sample.split.name(), group, &sum, &pixels];
            table.write_record(row.into_iter().chain(masked.then_some(mask)))
        })
    })
}

/// A row of a file of [`write_splits_csv`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct SplitRow {
    /// [`Sample::name`](super::Sample::name)
    pub path: String,
    /// Its split.
    pub split: Split,
    /// Its group; empty without one.
    pub group: String,
    /// SHA-256 of its file; empty in runs of older versions.
    #[serde(default)]
    pub sha256: String,
    /// [`PixelSum::text`] of its image; empty in runs of older versions.
    #[serde(default)]
    pub pixels: String,
}

/// The rows of a file of [`write_splits_csv`]; the images themselves are not looked for.
///
/// # Errors
/// A data error when the file cannot be read.
pub fn read_splits_csv(path: &Path) -> Result<Vec<SplitRow>> {
    let failed = |error: csv::Error| {
        DataError::invalid(format!("cannot read {}: {error}", path.shown()), "every run directory has one")
    };
    let bytes = read_regular(path).map_err(|error| failed(error.into()))?;
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    reader.deserialize().map(|row| row.map_err(|error| failed(error).into())).collect()
}
