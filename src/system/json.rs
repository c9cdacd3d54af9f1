//! JSON files, with their path in every error.

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

/// Reads a file that holds a value in JSON.
///
/// # Errors
/// When the system refuses, or as [`parse_json`].
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(path, &std::fs::read(path).map_err(Error::io("read", path))?)
}

/// The value that the bytes of a file hold.
///
/// # Errors
/// A weights error when they are no JSON, or that of something else.
pub fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| WeightsError::invalid(path, format!("not the JSON it should be ({error})")).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::files::write_json;

    #[test]
    fn a_value_reads_back_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_json(&path, &[0.1, 1e-300]).unwrap();
        assert_eq!(read_json::<[f64; 2]>(&path).unwrap(), [0.1, 1e-300]);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("]\n"));
        for (bytes, reason) in [("[0.1", "EOF"), ("[0.1, \"b\"]", "invalid type")] {
            std::fs::write(&path, bytes).unwrap();
            let error = read_json::<[f64; 2]>(&path).unwrap_err().to_string();
            assert!(error.contains("a.json") && error.contains(reason), "{error}");
        }
    }
}
