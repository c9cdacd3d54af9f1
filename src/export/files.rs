//! The `model.safetensors` of an export, as other libraries write it.

use crate::error::{Error, Result};
use crate::system::files::keeping_mode;
use candle_core::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The f32 values of a tensor, little-endian as every file format here wants them.
pub(super) fn bytes(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(bytemuck::cast_slice(&values).to_vec())
}

/// Writes `folder/model.safetensors`.
pub(super) fn write_tensors(folder: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = folder.join("model.safetensors");
    // transformers opens only files that say which library's layout they have.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    keeping_mode(&path, || {
        safetensors::serialize_to_file(tensors, Some(metadata), &path)
            .map_err(|error| Error::io("write", &path)(std::io::Error::other(error.to_string())))
    })
}
