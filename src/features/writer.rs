//! Feature matrices as files that other tools open, written row by row.

use crate::error::{Error, Result};
use crate::system::files::Staged;
use crate::system::shown::Shown;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The formats by file ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureFormat {
    /// One tensor `features` (n, width) f32.
    Safetensors,
    /// `NumPy`'s format, version 1.0: (n, width) `<f4` in C order.
    Npy,
}

impl FeatureFormat {
    /// The format of a file name.
    ///
    /// # Errors
    /// A usage error that lists the endings.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") => Ok(Self::Npy),
            _ => Err(Error::usage_hint(
                format!("--out {} has no known ending", path.shown()),
                "end it in .safetensors or .npy",
            )),
        }
    }

    fn header(self, rows: usize, width: usize, metadata: &serde_json::Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Safetensors => {
                let tensor = json!({"dtype": "F32", "shape": [rows, width], "data_offsets": [0, rows * width * 4]});
                let mut text = json!({"__metadata__": metadata, "features": tensor}).to_string();
                text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
                bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            Self::Npy => {
                let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
                // The values begin at a multiple of 64 bytes; a line break ends the header.
                let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
                text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
                text.push('\n');
                bytes.extend_from_slice(b"\x93NUMPY\x01\x00");
                bytes.extend_from_slice(&(length as u16).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    }
}

/// A feature file being written; it gets its name when it is complete.
pub struct FeatureWriter {
    file: BufWriter<File>,
    staged: Staged,
}

impl FeatureWriter {
    /// Starts a file of `rows` rows of `width` values. `metadata` maps names to strings; npy has no room for it.
    ///
    /// # Errors
    /// A usage error for an unknown ending, an I/O error when it cannot be written.
    pub fn create(target: &Path, rows: usize, width: usize, metadata: &serde_json::Value) -> Result<Self> {
        let format = FeatureFormat::of(target)?;
        let staged = Staged::beside(target)?;
        let file = File::create(staged.path()).map_err(Error::io("create", staged.path()))?;
        let mut writer = Self { file: BufWriter::new(file), staged };
        writer.write(&format.header(rows, width, metadata))?;
        Ok(writer)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, row: &[f32]) -> Result<()> {
        // Both formats are little-endian.
        self.write(bytemuck::cast_slice(row))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", self.staged.target()))
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self) -> Result<()> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(Error::io("write", self.staged.target()))?;
        self.staged.publish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn both_formats_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.npy"] {
            let path = folder.path().join(name);
            let mut writer = FeatureWriter::create(&path, 2, 3, &json!({"features": "pool"})).unwrap();
            writer.append(&[1.0, 2.0, 3.0]).unwrap();
            writer.append(&[4.0, 5.0, -6.5]).unwrap();
            assert!(!path.exists(), "half a file has the name");
            writer.finish().unwrap();
            let tensor = if name.ends_with("npy") {
                Tensor::read_npy(&path).unwrap()
            } else {
                candle_core::safetensors::load(&path, &Device::Cpu).unwrap().remove("features").unwrap()
            };
            assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1.0, 2.0, 3.0], [4.0, 5.0, -6.5]]);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(FeatureFormat::of(Path::new("a.csv")).is_err());
    }
}
