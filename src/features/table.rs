//! The table of images beside a file of their features.

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::system::files::read_regular;
use crate::system::shown::Shown;
use crate::system::tables::write_csv;
use std::path::Path;

/// The columns of the table.
const COLUMNS: [&str; 3] = ["path", "label", "split"];

/// Refuses to replace a table that was not written with a file of features, such as the manifest of the images.
///
/// # Errors
/// A usage error when there is one.
pub fn check(out: &Path, table: &Path) -> Result<()> {
    let is_ours = || {
        let text = read_regular(table).unwrap_or_default();
        out.exists() && text.starts_with(format!("{}\n", COLUMNS.join(",")).as_bytes())
    };
    if !table.exists() || is_ours() {
        return Ok(());
    }
    let message = format!("{} exists, and a table of that name would be written beside {}", table.shown(), out.shown());
    Err(Error::usage_hint(message, "choose another --out, or move that file"))
}

/// One row an image, in the order of the features.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, dataset: &Dataset, samples: &[usize]) -> Result<()> {
    write_csv(path, |table| {
        table.write_record(COLUMNS)?;
        samples
            .iter()
            .map(|&sample| &dataset.samples[sample])
            .try_for_each(|image| table.write_record([&image.name, &dataset.classes[image.label], image.split.name()]))
    })
}
