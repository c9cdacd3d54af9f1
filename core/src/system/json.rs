//! JSON files, with their path in every error.

use super::files::{read_at_most, write_atomic};
use crate::error::{Error, Result, WeightsError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// JSON for people: indented, with a line break at the end. `path` is where it will be written.
///
/// # Errors
/// When the value cannot be expressed in JSON.
pub fn json_text(path: &Path, value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::io("write", path)(error.into()))?;
    Ok(text + "\n")
}

/// Replaces a file by indented JSON, as [`write_atomic`] does.
///
/// # Errors
/// When the system refuses, naming the path.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomic(path, json_text(path, value)?.as_bytes())
}

/// Far above any JSON file that is usually read here: keeps a wrong or forged one out of memory.
const MOST_BYTES: u64 = 64 << 20;

/// Reads a file that holds a value in JSON. The parser bounds how deeply it may be nested.
///
/// # Errors
/// When the system refuses or it is not a regular file, a weights error when it is larger than 64 MiB, or as [`parse_json`].
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_large_json(path, MOST_BYTES)
}

/// Like [`read_json`], of a file of at most `most` bytes.
///
/// # Errors
/// As [`read_json`].
pub fn read_large_json<T: DeserializeOwned>(path: &Path, most: u64) -> Result<T> {
    let Some(bytes) = read_at_most(path, most).map_err(Error::io("read", path))? else {
        let message = format!("larger than {} MiB, which no such file of a model or run is", most >> 20);
        return Err(WeightsError::invalid(path, message).into());
    };
    parse_json(path, &bytes)
}

/// The value that the bytes of a file hold.
///
/// # Errors
/// A weights error when they are not JSON, or that of something else.
pub fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| WeightsError::invalid(path, format!("not the JSON it should be ({error})")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_json(&path, &[0.1, 1e-300]).unwrap();
        assert_eq!(read_json::<[f64; 2]>(&path).unwrap(), [0.1, 1e-300]);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("]\n"));
        let text = format!("[0.5,{}0.25]", " ".repeat(100));
        std::fs::write(&path, &text).unwrap();
        let read = |most| read_large_json::<[f64; 2]>(&path, most);
        assert_eq!(read(text.len() as u64).unwrap(), [0.5, 0.25]);
        assert!(read(text.len() as u64 - 1).unwrap_err().to_string().contains("larger than"));
        for (bytes, reason) in [("[0.1", "EOF"), ("[0.1, \"b\"]", "invalid type")] {
            std::fs::write(&path, bytes).unwrap();
            let error = read_json::<[f64; 2]>(&path).unwrap_err().to_string();
            assert!(error.contains("a.json") && error.contains(reason), "{error}");
        }
    }
}
