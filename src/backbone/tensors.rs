//! The tensors of one or more weights files, read one at a time.
//!
//! A tensor is copied once, to f32, when it is asked for: the files stay mapped or closed, so a model is never held
//! more than once in memory.

use super::pickle::{inspect, other_kind};
use crate::kernels::{count_not_finite, read, widened};
use crate::nn::reason;
use crate::system::shown::Shown;
use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

/// Where trainers put a state dict among other things, in the order in which it is looked for: averaged weights first,
/// as timm does.
const NESTED: [&str; 6] = ["state_dict_ema", "model_ema", "model", "state_dict", "module", "teacher"];

/// What wrappers put before the names of all parameters.
const WRAPPERS: [&str; 11] = [
    "module.", "_orig_mod.", "timm_model.", "model.", "backbone.", "encoder.", "trunk.", "net.", "teacher.",
    "student.", "ema.",
];

/// Tensors by the library's names.
#[derive(Default)]
pub struct Tensors<'a> {
    stored: BTreeMap<String, Stored<'a>>,
    notes: Vec<String>,
}

enum Stored<'a> {
    View(TensorView<'a>),
    Pickled { file: Rc<PthTensors>, name: String, shape: Vec<usize>, dtype: DType },
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
        if let Some(kind) = other_kind(&bytes[..bytes.len().min(512)]) {
            return Err(kind.into());
        }
        let file =
            SafeTensors::deserialize(bytes).map_err(|error| format!("not a valid safetensors file ({error})"))?;
        check_names(bytes)?;
        file.tensors().into_iter().try_for_each(|(name, view)| self.add(&name, Stored::View(view)))
    }

    /// Adds the tensors of a file that PyTorch pickled; nothing in it is executed.
    ///
    /// # Errors
    /// A message when the file is damaged or an older kind, or a name was there before.
    pub fn add_pickle(&mut self, path: &Path) -> Result<(), String> {
        let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        let file = Rc::new(self.open_pickle(path)?);
        let mut infos: Vec<_> = file.tensor_infos().values().collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        for info in infos {
            let shape = info.layout.dims().to_vec();
            let bytes = shape.iter().try_fold(info.dtype.size_in_bytes(), |bytes, &dim| bytes.checked_mul(dim));
            // PyTorch does not compress, so what is larger than the file is a lie that must not be allocated.
            if bytes.is_none_or(|bytes| bytes as u64 > length) {
                return Err(format!("{} of shape {shape:?} is larger than the file", info.name));
            }
            let stored = Stored::Pickled { file: Rc::clone(&file), name: info.name.clone(), shape, dtype: info.dtype };
            self.add(&info.name, stored)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, stored: Stored<'a>) -> Result<(), String> {
        let earlier = self.stored.insert(name.to_owned(), stored);
        earlier.map_or(Ok(()), |_| Err(format!("{name} is in more than one file")))
    }

    /// Opens a pickled state dict, at the top of the file or under one of the names that trainers use.
    fn open_pickle(&mut self, path: &Path) -> Result<PthTensors, String> {
        let class = inspect(path)?;
        let open = |key: Option<&str>| {
            // candle's reader takes the arguments of a hostile file by position and panics when they are absent.
            std::panic::catch_unwind(|| PthTensors::new(path, key))
                .map_err(|_| "not a state dict that PyTorch saved".to_owned())?
                .map_err(|error| format!("not a file that PyTorch saved ({})", reason(&error)))
        };
        for key in NESTED {
            if let Some(file) = open(Some(key)).ok().filter(|file| !file.tensor_infos().is_empty()) {
                self.notes.push(format!("took the weights under {key:?} of {}", path.shown()));
                return Ok(file);
            }
        }
        let file = open(None).and_then(|file| {
            if file.tensor_infos().is_empty() { Err("holds no tensors".to_owned()) } else { Ok(file) }
        });
        file.map_err(|reason| match class {
            Some(class) => format!(
                "is a pickled model of the class {class}, which only that library can open: save its parameters instead, \
                 `torch.save(model.state_dict(), \"pytorch_model.bin\")`"
            ),
            None => reason,
        })
    }

    /// Takes off what a wrapper put before the names of all tensors; to be called when all files were added.
    pub fn strip_prefixes(&mut self) {
        let mut stripped = String::new();
        while let Some(prefix) = WRAPPERS
            .iter()
            .find(|prefix| !self.stored.is_empty() && self.stored.keys().all(|name| name.starts_with(**prefix)))
        {
            let strip = |(name, stored): (String, Stored<'a>)| (name[prefix.len()..].to_owned(), stored);
            self.stored = std::mem::take(&mut self.stored).into_iter().map(strip).collect();
            stripped.push_str(prefix);
        }
        if !stripped.is_empty() {
            self.notes.push(format!("all names of the weights begin with {stripped:?}, which was taken off"));
        }
    }

    /// What was done to find the tensors, for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The shape of every tensor.
    pub fn header(&self) -> BTreeMap<String, Vec<usize>> {
        self.stored.iter().map(|(name, stored)| (name.clone(), stored.shape().to_vec())).collect()
    }

    /// The type in which a tensor is stored; f32 when there is none of that name.
    pub fn float_type(&self, name: &str) -> DType {
        self.stored.get(name).and_then(Stored::float_type).unwrap_or(DType::F32)
    }

    /// One tensor as f32, whatever float type it is stored in.
    ///
    /// # Errors
    /// A message when it is absent, of no float type, unreadable, or holds values that are not finite.
    pub fn read(&self, name: &str) -> Result<Tensor, String> {
        let stored = self.stored.get(name).ok_or_else(|| format!("{name} is missing"))?;
        let Some(dtype) = stored.float_type() else { return Err(format!("{name} has no float type")) };
        let tensor = match stored {
            Stored::View(view) => Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu),
            Stored::Pickled { file, name, .. } => {
                file.get(name).and_then(|tensor| tensor.ok_or_else(|| candle_core::Error::Msg("is missing".into())))
            }
        };
        let tensor = tensor.and_then(|tensor| widened(&tensor)?.to_dtype(DType::F32)?.contiguous());
        let tensor = tensor.map_err(|error| format!("{name}: {}", reason(&error)))?;
        check_finite(name, &tensor)?;
        Ok(tensor)
    }
}

/// Refuses weights that are not finite numbers: they make every answer of a model worthless, and mostly without a trace.
///
/// # Errors
/// A message that names the tensor.
pub fn check_finite(name: &str, tensor: &Tensor) -> Result<(), String> {
    let count = || read(&tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?, |values| Ok(count_not_finite(values)));
    match count().map_err(|error| format!("{name}: {}", reason(&error)))? {
        0 => Ok(()),
        bad => Err(format!("{name} has values that are not finite numbers ({bad} of {})", tensor.elem_count())),
    }
}

/// Refuses a header that names a tensor twice: which of the two counts would be the reader's choice.
fn check_names(bytes: &[u8]) -> Result<(), String> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = BTreeSet<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut names = BTreeSet::new();
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if names.contains(&name) {
                    return Err(serde::de::Error::custom(format!("it names {name:?} twice")));
                }
                names.insert(name);
            }
            Ok(names)
        }
    }
    // The length was checked by the library.
    let length = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    let header = bytes.get(8..8 + length).unwrap_or_default();
    let mut parser = serde_json::Deserializer::from_slice(header);
    parser.deserialize_map(Names).map(drop).map_err(|error| format!("not a valid safetensors file ({error})"))
}
