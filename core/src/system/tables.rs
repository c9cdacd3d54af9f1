//! Tables as CSV.

use super::files::write_atomic;
use crate::error::{Error, Result};
use std::path::Path;

/// A table under way: header and rows are its records.
pub type Table = csv::Writer<Vec<u8>>;

/// The bytes of the table that `write` writes.
///
/// # Errors
/// Those of `write`.
pub fn csv_bytes(write: impl FnOnce(&mut Table) -> csv::Result<()>) -> csv::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    write(&mut table)?;
    table.into_inner().map_err(|error| error.into_error().into())
}

/// Replaces a file by the table that `write` writes, as [`write_atomic`] does.
///
/// # Errors
/// When it cannot be written.
pub fn write_csv(path: &Path, write: impl FnOnce(&mut Table) -> csv::Result<()>) -> Result<()> {
    let bytes = csv_bytes(write).map_err(Error::csv(path))?;
    write_atomic(path, &bytes)
}
