//! The `model.safetensors` of an export, as other libraries write it.

use crate::error::{Error, Result};
use crate::system::files::keeping_mode;
use candle_core::Tensor;
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

/// The f32 values of a tensor, little-endian as every file format here wants them.
pub(super) fn bytes(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// One tensor as it is written to the file.
struct TensorBytes {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &TensorBytes {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes `folder/model.safetensors`.
///
/// # Errors
/// When the system refuses, naming the path.
pub(super) fn write_tensors(folder: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = folder.join("model.safetensors");
    let rows: BTreeMap<&String, TensorBytes> = tensors
        .iter()
        .map(|(name, tensor)| Ok((name, TensorBytes { shape: tensor.dims().to_vec(), bytes: bytes(tensor)? })))
        .collect::<Result<_>>()?;
    // transformers opens only files that say which library's layout they have.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    keeping_mode(&path, || {
        safetensors::serialize_to_file(rows.iter(), Some(metadata), &path)
            .map_err(|error| Error::io("write", &path)(std::io::Error::other(error.to_string())))
    })?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("write", &path))
}
