//! The tensors of one or more weights files, read one at a time.
//!
//! A tensor is copied once, to f32, when it is asked for: the files stay mapped or closed, so a model is never held
//! more than once in memory.

use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Storage, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

/// Tensors by the library's names.
#[derive(Default)]
pub struct Tensors<'a>(BTreeMap<String, Stored<'a>>);

enum Stored<'a> {
    View(TensorView<'a>),
    Pickled { file: Rc<PthTensors>, shape: Vec<usize>, dtype: DType },
}

impl Stored<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Self::View(view) => view.shape(),
            Self::Pickled { shape, .. } => shape,
        }
    }

    fn float_type(&self) -> Option<DType> {
        match self {
            Self::View(view) => match view.dtype() {
                Dtype::F16 => Some(DType::F16),
                Dtype::BF16 => Some(DType::BF16),
                Dtype::F32 => Some(DType::F32),
                Dtype::F64 => Some(DType::F64),
                _ => None,
            },
            Self::Pickled { dtype, .. } => dtype.is_float().then_some(*dtype),
        }
    }
}

impl<'a> Tensors<'a> {
    /// Adds the tensors of a safetensors file, as views into its bytes.
    ///
    /// # Errors
    /// A message when the header is damaged, its offsets do not fit the file, or a name was there before.
    pub fn add_safetensors(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        let file =
            SafeTensors::deserialize(bytes).map_err(|error| format!("not a valid safetensors file ({error})"))?;
        file.tensors().into_iter().try_for_each(|(name, view)| self.add(&name, Stored::View(view)))
    }

    /// Adds the tensors of a file that PyTorch pickled; nothing in it is executed.
    ///
    /// # Errors
    /// A message when the file is damaged or an older kind, or a name was there before.
    pub fn add_pickle(&mut self, path: &Path) -> Result<(), String> {
        let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        let file = Rc::new(open_pickle(path)?);
        let mut infos: Vec<_> = file.tensor_infos().values().collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        for info in infos {
            let shape = info.layout.dims().to_vec();
            let bytes = shape.iter().try_fold(info.dtype.size_in_bytes(), |bytes, &dim| bytes.checked_mul(dim));
            // PyTorch does not compress, so what is larger than the file is a lie that must not be allocated.
            if bytes.is_none_or(|bytes| bytes as u64 > length) {
                return Err(format!("{} of shape {shape:?} is larger than the file", info.name));
            }
            let stored = Stored::Pickled { file: Rc::clone(&file), shape, dtype: info.dtype };
            self.add(&info.name, stored)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, stored: Stored<'a>) -> Result<(), String> {
        match self.0.insert(name.to_owned(), stored) {
            Some(_) => Err(format!("{name} is in more than one file")),
            None => Ok(()),
        }
    }

    /// The shape of every tensor.
    pub fn header(&self) -> BTreeMap<String, Vec<usize>> {
        self.0.iter().map(|(name, stored)| (name.clone(), stored.shape().to_vec())).collect()
    }

    /// The type in which a tensor is stored; f32 when there is none of that name.
    pub fn float_type(&self, name: &str) -> DType {
        self.0.get(name).and_then(Stored::float_type).unwrap_or(DType::F32)
    }

    /// One tensor as f32, whatever float type it is stored in.
    ///
    /// # Errors
    /// A message when it is absent, of no float type, unreadable, or holds values that are not finite.
    pub fn read(&self, name: &str) -> Result<Tensor, String> {
        let stored = self.0.get(name).ok_or_else(|| format!("{name} is missing"))?;
        let Some(dtype) = stored.float_type() else { return Err(format!("{name} has no float type")) };
        let tensor = match stored {
            Stored::View(view) => Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu),
            Stored::Pickled { file, .. } => {
                file.get(name).and_then(|tensor| tensor.ok_or_else(|| candle_core::Error::Msg("is missing".into())))
            }
        };
        let tensor = tensor.and_then(|tensor| tensor.to_dtype(DType::F32)?.contiguous());
        let tensor = tensor.map_err(|error| format!("{name}: {error}"))?;
        check_finite(name, &tensor)?;
        Ok(tensor)
    }
}

/// Refuses weights that are not finite numbers: they make every answer of a model worthless, and mostly without a trace.
///
/// # Errors
/// A message that names the tensor.
pub fn check_finite(name: &str, tensor: &Tensor) -> Result<(), String> {
    let count = || -> candle_core::Result<usize> {
        let values = tensor.to_dtype(DType::F32)?.contiguous()?;
        let (storage, layout) = values.storage_and_layout();
        let bad = |values: &[f32]| values.iter().filter(|value| !value.is_finite()).count();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(storage), Some((start, end))) => Ok(bad(&storage.as_slice::<f32>()?[start..end])),
            _ => Ok(bad(&values.flatten_all()?.to_vec1::<f32>()?)),
        }
    };
    match count().map_err(|error| format!("{name}: {error}"))? {
        0 => Ok(()),
        bad => Err(format!("{name} has values that are not finite numbers ({bad} of {})", tensor.elem_count())),
    }
}

/// Opens a pickled state dict, at the top of the file or under `state_dict` as trainers save it.
fn open_pickle(path: &Path) -> Result<PthTensors, String> {
    let open = |key: Option<&str>| {
        // candle's reader takes the arguments of a hostile file by position and panics when they are absent.
        std::panic::catch_unwind(|| PthTensors::new(path, key))
            .map_err(|_| "not a state dict that PyTorch saved".to_owned())?
            .map_err(|error| format!("not a file that PyTorch saved ({error})"))
    };
    let file = open(None)?;
    let file = if file.tensor_infos().is_empty() { open(Some("state_dict"))? } else { file };
    if file.tensor_infos().is_empty() { Err("holds no tensors".into()) } else { Ok(file) }
}
