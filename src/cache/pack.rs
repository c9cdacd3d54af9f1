//! One immutable file of rows, in the safetensors format: `rows` (n, width) f32, `keys` (n, 32) u8, `crc` (n) u32.
//!
//! It is written as a stream under a temporary name and renamed when complete. It is not synced to the disk: after a
//! power cut a torn pack fails its checksums and is computed again.

use super::Key;
use crate::error::{Error, Result};
use crate::system::files::{Staged, create_folder};
use memmap2::Mmap;
use safetensors::SafeTensors;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The ending of a complete pack.
pub const EXTENSION: &str = "safetensors";

/// Rows start at a multiple of this many bytes: one cache line.
const ALIGNMENT: usize = 64;

/// A mapped pack whose header is valid; its rows are checked one by one.
#[derive(Debug)]
pub struct Pack {
    map: Mmap,
    rows: Range<usize>,
    keys: Range<usize>,
    crc: Range<usize>,
    width: usize,
}

impl Pack {
    /// Maps a pack of rows of `width` values.
    ///
    /// # Errors
    /// A sentence saying what is damaged.
    pub fn open(path: &Path, width: usize) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        // SAFETY: a map is only sound while nobody changes the file. Packs are never changed once they have their
        // name: they are written under another one, and removed but not rewritten.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| error.to_string())?;
        let tensors = SafeTensors::deserialize(&map).map_err(|error| error.to_string())?;
        let part = |name: &str, shape: &[usize]| -> Result<Range<usize>, String> {
            let view = tensors.tensor(name).map_err(|error| error.to_string())?;
            if view.shape() != shape {
                return Err(format!("{name} has the shape {:?}, expected {shape:?}", view.shape()));
            }
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            Ok(start..start + view.data().len())
        };
        let n = tensors.tensor("crc").map_err(|error| error.to_string())?.shape().first().copied().unwrap_or(0);
        let (rows, keys, crc) = (part("rows", &[n, width])?, part("keys", &[n, 32])?, part("crc", &[n])?);
        if rows.start % ALIGNMENT != 0 || [rows.len(), keys.len(), crc.len()] != [n * width * 4, n * 32, n * 4] {
            return Err("its rows are not aligned 32-bit floats".into());
        }
        Ok(Self { map, rows, keys, crc, width })
    }

    /// The key of each row.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.map[self.keys.clone()].as_chunks::<32>().0.iter().copied()
    }

    /// Whether a row matches its checksum.
    pub fn intact(&self, row: usize) -> bool {
        let bytes = self.width * 4;
        let start = self.rows.start + row * bytes;
        let stored = &self.map[self.crc.clone()].as_chunks::<4>().0[row];
        crc32fast::hash(&self.map[start..start + bytes]) == u32::from_le_bytes(*stored)
    }

    /// The values of a row.
    pub fn row(&self, row: usize) -> &[f32] {
        let values: &[f32] = bytemuck::cast_slice(&self.map[self.rows.clone()]);
        &values[row * self.width..(row + 1) * self.width]
    }
}

/// A pack being written.
#[derive(Debug)]
pub struct PackWriter {
    file: BufWriter<File>,
    staged: Staged,
    keys: Vec<Key>,
    width: usize,
    crc: Vec<u32>,
}

impl PackWriter {
    /// The size of a pack of that many rows, header included, rounded up.
    pub fn size(rows: usize, width: usize) -> u64 {
        (rows * (width * 4 + 36) + 512) as u64
    }

    /// Starts a pack for rows that will come in the order of `keys`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(folder: &Path, keys: &[Key], width: usize) -> Result<Self> {
        create_folder(folder)?;
        let name = crate::system::digest::sha256(keys.as_flattened());
        let staged = Staged::beside(&folder.join(format!("{}.{EXTENSION}", &name[..32])))?;
        let file = File::create_new(staged.path()).map_err(Error::io("create", staged.path()))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&header(keys.len(), width)).map_err(Error::io("write", staged.target()))?;
        Ok(Self { file, staged, keys: keys.to_vec(), width, crc: Vec::with_capacity(keys.len()) })
    }

    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.crc.len()
    }

    /// Adds the next row; whether there is room for more.
    ///
    /// # Errors
    /// When the disk refuses, or the row has another width than the pack.
    pub fn append(&mut self, row: &[f32]) -> Result<bool> {
        if row.len() != self.width {
            let reason = format!("a row has {} values, expected {}", row.len(), self.width);
            return Err(self.failed(io::Error::other(reason)));
        }
        let bytes: &[u8] = bytemuck::cast_slice(row);
        self.file.write_all(bytes).map_err(|error| self.failed(error))?;
        self.crc.push(crc32fast::hash(bytes));
        Ok(self.crc.len() < self.keys.len())
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// When the disk refuses; the temporary is removed.
    pub fn publish(mut self) -> Result<PathBuf> {
        let crc: Vec<u8> = self.crc.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let written = self.file.write_all(self.keys.as_flattened());
        let written = written.and_then(|()| self.file.write_all(&crc)).and_then(|()| self.file.flush());
        written.map_err(|error| self.failed(error))?;
        let target = self.staged.target().to_path_buf();
        self.staged.rename()?;
        Ok(target)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("write", self.staged.target())(error)
    }
}

/// Length and JSON header of the safetensors format, padded so that the rows are aligned.
fn header(n: usize, width: usize) -> Vec<u8> {
    let (rows, keys) = (n * width * 4, n * 32);
    let description = json!({
        "rows": {"dtype": "F32", "shape": [n, width], "data_offsets": [0, rows]},
        "keys": {"dtype": "U8", "shape": [n, 32], "data_offsets": [rows, rows + keys]},
        "crc": {"dtype": "U32", "shape": [n], "data_offsets": [rows + keys, rows + keys + n * 4]},
    });
    let mut text = description.to_string();
    while !(text.len() + 8).is_multiple_of(ALIGNMENT) {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
