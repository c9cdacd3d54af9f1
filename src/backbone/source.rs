//! Where weights come from: the built-in backbone, or a folder as timm, transformers or `open_clip` saves it, local or
//! from the hub.

use super::family::Description;
use super::tensors::Tensors;
use crate::error::{Error, Result, WeightsError};
use crate::hub::{Hub, LAYOUTS, PREPROCESSORS, RepoId, Wanted, is_index, read_index};
use crate::system::digest::{sha256, sha256_of_files};
use crate::system::files::check_regular;
use crate::system::json::{parse_json, read_json};
use memmap2::Mmap;
use serde_json::Value;
use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Backbones inside the binary: name, `config.json`, `model.safetensors`.
const BUILTIN: &[(&str, &str, &[u8])] = &[
    ("vit-flaw", vitadapt_vit_flaw::CONFIG, vitadapt_vit_flaw::WEIGHTS),
    (
        "vit-mini",
        include_str!("../../assets/vit-mini/config.json"),
        include_bytes!("../../assets/vit-mini/model.safetensors"),
    ),
];

/// The files of a backbone before anything is read from the weights.
pub struct Source {
    /// The weights file, or the index of several, for messages.
    pub path: PathBuf,
    /// The files beside the weights.
    pub description: Description,
    weights: Weights,
}

enum Weights {
    Static(&'static [u8]),
    Safetensors(Vec<(PathBuf, Mmap)>),
    Pickle(Vec<PathBuf>),
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
        let description = Description { config: parse_json(&path, config.as_bytes())?, preprocessor: Value::Null };
        Ok(Self { path, description, weights: Weights::Static(bytes) })
    }

    fn folder(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(WeightsError::Invalid {
                path: folder.to_path_buf(),
                reason: if folder.exists() {
                    "model.backbone names a file, not the folder that it lies in".into()
                } else {
                    "model.backbone names a folder that does not exist".into()
                },
                hint: Some("give a folder that holds config.json and model.safetensors, or builtin:vit-flaw".into()),
            }
            .into());
        }
        // Not a file and not absent: a pipe would be waited for, and be called missing otherwise.
        for name in LAYOUTS.iter().flat_map(|(config, weights)| [*config, *weights]) {
            let path = folder.join(name);
            if path.exists() {
                check_regular(&path).map_err(|reason| WeightsError::invalid(&path, reason.to_string()))?;
            }
        }
        let has = |name: &str| folder.join(name).is_file();
        if let Some(error) = adapter_alone(folder) {
            return Err(error.into());
        }
        let Some((config, weights)) = LAYOUTS.iter().find(|(config, weights)| has(config) && has(weights)) else {
            let described = LAYOUTS.iter().any(|(config, _)| has(config));
            return Err(missing_file(folder, if described { "model.safetensors" } else { "config.json" }).into());
        };
        let path = folder.join(weights);
        let files = if is_index(weights) { shards(&path)? } else { vec![path.clone()] };
        let weights = if files.iter().any(|file| file.extension().is_some_and(|extension| extension == "bin")) {
            Weights::Pickle(files)
        } else {
            Weights::Safetensors(files.into_iter().map(map).collect::<Result<_>>()?)
        };
        let description =
            Description { config: read_json(&folder.join(config))?, preprocessor: read_preprocessor(folder)? };
        Ok(Self { path, description, weights })
    }

    /// The validated tensors of all files. Those of safetensors files are views into them.
    ///
    /// # Errors
    /// A weights error when a header is damaged or its offsets do not fit the file.
    pub fn tensors(&self) -> Result<Tensors<'_>> {
        let mut tensors = Tensors::default();
        let invalid = |path: &Path| {
            let path = path.to_path_buf();
            move |reason: String| WeightsError::invalid(path, reason)
        };
        match &self.weights {
            Weights::Static(bytes) => tensors.add_safetensors(bytes).map_err(invalid(&self.path)),
            Weights::Safetensors(files) => {
                files.iter().try_for_each(|(path, bytes)| tensors.add_safetensors(bytes).map_err(invalid(path)))
            }
            Weights::Pickle(files) => files.iter().try_for_each(|path| tensors.add_pickle(path).map_err(invalid(path))),
        }?;
        tensors.strip_prefixes();
        Ok(tensors)
    }

    /// The SHA-256 of the weights in hexadecimal; several files count as one, in the order of their names.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn sha256(&self) -> Result<String> {
        match &self.weights {
            Weights::Static(bytes) => Ok(sha256(bytes)),
            Weights::Safetensors(files) => sha256_of_files(files.iter().map(|(path, _)| path.as_path())),
            Weights::Pickle(files) => sha256_of_files(files.iter().map(PathBuf::as_path)),
        }
    }
}

fn map(path: PathBuf) -> Result<(PathBuf, Mmap)> {
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    // SAFETY: a map is only sound while nobody changes the file. Weights are written once and then read; the
    // alternative is a second copy of up to several gigabytes in memory. The map is dropped after loading.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", &path))?;
    Ok((path, map))
}

/// The files that an index lists, beside it.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let names = read_index(index)?;
    let files: Vec<PathBuf> = names.iter().map(|name| index.with_file_name(name)).collect();
    let missing: Vec<&str> =
        names.iter().zip(&files).filter(|(_, file)| !file.is_file()).map(|(name, _)| name.as_str()).collect();
    if missing.is_empty() {
        Ok(files)
    } else {
        Err(WeightsError::invalid(index, format!("lists files that are missing: {}", missing.join(", "))).into())
    }
}

fn read_preprocessor(folder: &Path) -> Result<Value> {
    let [alone, nested] = PREPROCESSORS.map(|name| folder.join(name));
    let read = |path: &Path| if path.is_file() { read_json::<Value>(path) } else { Ok(Value::Null) };
    // As transformers chooses where both are there.
    match read(&nested)?["image_processor"].take() {
        Value::Null => read(&alone),
        settings => Ok(settings),
    }
}

/// What a folder is that holds what peft saves beside a model's own weights.
fn adapter_alone(folder: &Path) -> Option<WeightsError> {
    let config = folder.join("adapter_config.json");
    let complete = LAYOUTS.iter().any(|(_, weights)| folder.join(weights).is_file());
    if complete || !config.is_file() {
        return None;
    }
    let base = read_json::<Value>(&config).unwrap_or_default();
    let base = base["base_model_name_or_path"].as_str().unwrap_or("its base model");
    Some(WeightsError::Invalid {
        path: folder.to_path_buf(),
        reason: format!("holds only an adapter for {base:?}, not the model"),
        hint: Some(
            "merge it in Python and save the whole: `model.merge_and_unload().save_pretrained(FOLDER)`, where model is the \
             PeftModel"
                .into(),
        ),
    })
}

/// Names that a message lists at most.
const MOST_NAMES: usize = 20;

fn missing_file(folder: &Path, required: &str) -> WeightsError {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let more = found.len().saturating_sub(MOST_NAMES);
    found.truncate(MOST_NAMES);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    let found = if found.is_empty() { Cow::Borrowed("nothing") } else { Cow::Owned(found.join(", ")) };
    WeightsError::Invalid {
        path: folder.to_path_buf(),
        reason: format!("has no {required}; it holds {found}"),
        hint: Some(
            "a backbone is a folder with config.json and model.safetensors (or its shards, or pytorch_model.bin), as \
             timm and transformers save it, or with open_clip_config.json and open_clip_model.safetensors"
                .into(),
        ),
    }
}
