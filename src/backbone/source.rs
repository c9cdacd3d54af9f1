//! Where weights come from: the built-in backbone, or a folder with `config.json` and `model.safetensors`, local or from
//! the hub.

use crate::error::{Error, Result, WeightsError};
use crate::hub::{Hub, RepoId, Wanted};
use crate::system::digest::sha256;
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Backbones inside the binary: name, `config.json`, `model.safetensors`.
const BUILTIN: &[(&str, &str, &[u8])] = &[(
    "vit-mini",
    include_str!("../../assets/vit-mini/config.json"),
    include_bytes!("../../assets/vit-mini/model.safetensors"),
)];

/// The bytes of a backbone before anything is read from them.
pub struct Source {
    /// The weights file, for messages.
    pub path: PathBuf,
    /// The parsed `config.json`.
    pub config: serde_json::Value,
    bytes: Bytes,
}

enum Bytes {
    Static(&'static [u8]),
    Mapped(Mmap),
}

impl Source {
    /// Opens `builtin:NAME`, a folder, or a model of the hub, which is fetched if it is not in the cache.
    ///
    /// # Errors
    /// A usage error for an unknown built-in name or a missing folder, a weights error for missing or damaged files,
    /// errors of the hub.
    pub fn open(backbone: &str) -> Result<Self> {
        if let Some(name) = backbone.strip_prefix("builtin:") {
            return Self::builtin(name);
        }
        match RepoId::of_backbone(backbone)? {
            Some(id) => Self::folder(&Hub::from_process()?.fetch(&id, Wanted::Backbone, &mut |_| {})?.folder),
            None => Self::folder(Path::new(backbone)),
        }
    }

    fn builtin(name: &str) -> Result<Self> {
        let known = || BUILTIN.iter().map(|(name, ..)| format!("builtin:{name}")).collect::<Vec<_>>().join(", ");
        let Some((_, config, bytes)) = BUILTIN.iter().find(|(candidate, ..)| *candidate == name) else {
            return Err(Error::usage_hint(
                format!("model.backbone: there is no built-in backbone {name:?}"),
                format!("built in: {}", known()),
            ));
        };
        let path = PathBuf::from(format!("builtin:{name}"));
        Ok(Self { config: parse_config(&path, config)?, path, bytes: Bytes::Static(bytes) })
    }

    fn folder(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(WeightsError::Invalid {
                path: folder.to_path_buf(),
                reason: "model.backbone names a folder that does not exist".into(),
                hint: Some("give a folder that holds config.json and model.safetensors, or builtin:vit-mini".into()),
            }
            .into());
        }
        let config_path = folder.join("config.json");
        let path = folder.join("model.safetensors");
        for required in [&config_path, &path] {
            if !required.is_file() {
                return Err(missing_file(folder, required).into());
            }
        }
        let config = std::fs::read_to_string(&config_path).map_err(Error::io("read", &config_path))?;
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        // SAFETY: a map is only sound while nobody changes the file. Weights are written once and then read; the
        // alternative is a second copy of up to several gigabytes in memory. The map is dropped after loading.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", &path))?;
        Ok(Self { config: parse_config(&config_path, &config)?, path, bytes: Bytes::Mapped(map) })
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Static(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }

    /// The validated tensors of the file, as views into it.
    ///
    /// # Errors
    /// A weights error when the header is damaged or its offsets do not fit the file.
    pub fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(self.bytes()).map_err(|error| {
            WeightsError::invalid(&self.path, format!("not a valid safetensors file ({error})")).into()
        })
    }

    /// The SHA-256 of the weights file, in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(self.bytes())
    }
}

/// Reads one tensor as f32, whatever float type it is stored in.
///
/// # Errors
/// A message when the type is not a float type.
pub fn to_f32(view: &TensorView<'_>) -> std::result::Result<Tensor, String> {
    let Some(dtype) = float_type(view.dtype()) else {
        return Err(format!("has type {:?}, expected a float type", view.dtype()));
    };
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
        .and_then(|tensor| tensor.to_dtype(DType::F32))
        .map_err(|error| error.to_string())
}

/// The tensor type of a stored float type.
pub fn float_type(stored: Dtype) -> Option<DType> {
    match stored {
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F32 => Some(DType::F32),
        Dtype::F64 => Some(DType::F64),
        _ => None,
    }
}

fn parse_config(path: &Path, text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).map_err(|error| WeightsError::invalid(path, format!("not valid JSON ({error})")).into())
}

fn missing_file(folder: &Path, required: &Path) -> WeightsError {
    let name = required.file_name().map_or(Cow::Borrowed(""), |name| name.to_string_lossy());
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    WeightsError::Invalid {
        path: folder.to_path_buf(),
        reason: format!(
            "has no {name}; it holds {}",
            if found.is_empty() { "nothing".into() } else { found.join(", ") }
        ),
        hint: Some(
            "a backbone is a folder with config.json and model.safetensors, as timm and transformers save it".into(),
        ),
    }
}
