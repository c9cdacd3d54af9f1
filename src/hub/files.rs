//! Which files make a backbone, in a repository as in a local folder.

use super::id::check_file_name;
use crate::error::{Error, Result};
use crate::system::json::read_json;
use std::collections::BTreeSet;
use std::path::Path;

const CONFIG: &str = "config.json";
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

/// The files of a backbone, as config and weights, the preferred ones first: those of PyTorch can be no more than a copy
/// of safetensors files. An index lists the files of a model that was saved in several.
pub const LAYOUTS: &[(&str, &str)] = &[
    (CONFIG, "model.safetensors"),
    (CONFIG, "model.safetensors.index.json"),
    (OPEN_CLIP_CONFIG, "open_clip_model.safetensors"),
    (CONFIG, "pytorch_model.bin"),
    (CONFIG, "pytorch_model.bin.index.json"),
    (OPEN_CLIP_CONFIG, "open_clip_pytorch_model.bin"),
];

/// Where transformers saves the settings of the image processor: a file of its own, or a part of the processor's.
pub const PREPROCESSORS: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

const TOKENIZER: &[&str] =
    &["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"];
/// Far above any index; a wrong file must not fill the memory.
const LARGEST_INDEX: u64 = 64 << 20;

/// Which files of a model are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Configuration and weights.
    #[default]
    Backbone,
    /// The files of the tokenizer as well, for text prompts.
    BackboneAndTokenizer,
}

impl Wanted {
    /// Goes through the files in order of need and says what is missing that a backbone cannot do without: a file, or a phrase
    /// for several. `have` brings one into `snapshot` and returns whether the repository has it.
    ///
    /// # Errors
    /// Those of `have`; a content error when the index of the shards is damaged or names anything but plain files.
    pub(super) fn gather(self, snapshot: &Path, have: &mut dyn FnMut(&str) -> Result<bool>) -> Result<Option<String>> {
        // Both are looked up: a repository for open_clip may have the two.
        let configs = [(CONFIG, have(CONFIG)?), (OPEN_CLIP_CONFIG, have(OPEN_CLIP_CONFIG)?)];
        if configs.iter().all(|(_, present)| !present) {
            return Ok(Some(CONFIG.into()));
        }
        let tokenizer = if self == Self::BackboneAndTokenizer { TOKENIZER } else { &[] };
        for file in PREPROCESSORS.iter().chain(tokenizer) {
            have(file)?;
        }
        let described = LAYOUTS.iter().filter(|(config, _)| configs.contains(&(*config, true)));
        let weights: Vec<&str> = described.map(|(_, weights)| *weights).collect();
        for file in &weights {
            if have(file)? {
                return if is_index(file) { missing_shard(&snapshot.join(file), have) } else { Ok(None) };
            }
        }
        Ok(Some(format!("weights ({})", weights.join(", "))))
    }
}

fn missing_shard(index: &Path, have: &mut dyn FnMut(&str) -> Result<bool>) -> Result<Option<String>> {
    for shard in read_index(index)? {
        if !have(&shard)? {
            return Ok(Some(shard));
        }
    }
    Ok(None)
}

/// Whether a file of [`LAYOUTS`] lists others instead of holding tensors.
pub fn is_index(file: &str) -> bool {
    file.ends_with(".index.json")
}

/// The files that an index lists, each once, sorted: plain names in its own folder.
///
/// # Errors
/// A weights error when the index is damaged or names anything else, an I/O error when it cannot be read.
pub fn read_index(path: &Path) -> Result<BTreeSet<String>> {
    let invalid = |reason: String| Error::from(crate::error::WeightsError::invalid(path, reason));
    if std::fs::metadata(path).map_err(Error::io("read", path))?.len() > LARGEST_INDEX {
        return Err(invalid("is too large for an index of shards".into()));
    }
    let index: serde_json::Value = read_json(path)?;
    let map = index["weight_map"].as_object().filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| invalid("has no weight_map, which says where each tensor lies".into()))?;
    map.values()
        .map(|shard| {
            let shard = shard.as_str().ok_or_else(|| invalid(format!("weight_map holds {shard}, not a file name")))?;
            check_file_name(shard).map_err(|error| invalid(format!("weight_map: {error}")))?;
            Ok(shard.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "model.safetensors.index.json";

    /// Gathers from a repository of the given files; gives what came of it and what was asked for.
    fn gather(wanted: Wanted, files: &[&str], index: &str) -> (Result<Option<String>>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        for (_, weights) in LAYOUTS.iter().filter(|(_, weights)| is_index(weights)) {
            std::fs::write(folder.path().join(weights), index).unwrap();
        }
        let mut asked = Vec::new();
        let result = wanted.gather(folder.path(), &mut |file| {
            asked.push(file.to_owned());
            Ok(files.contains(&file))
        });
        (result, asked)
    }

    #[test]
    fn only_what_is_needed_is_asked_for() {
        let (result, asked) = gather(Wanted::Backbone, &["config.json", "model.safetensors", "pytorch_model.bin"], "");
        assert_eq!(result.unwrap(), None);
        let optional = ["open_clip_config.json", "preprocessor_config.json", "processor_config.json"];
        assert_eq!(asked, [&["config.json"][..], &optional, &["model.safetensors"]].concat());
        let (_, asked) = gather(Wanted::BackboneAndTokenizer, &["config.json", "model.safetensors"], "");
        assert!(asked.contains(&"vocab.json".to_owned()));
    }

    #[test]
    fn weights_may_be_in_shards_or_in_other_files() {
        let index = r#"{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}"#;
        let files = ["config.json", INDEX, "m-1.safetensors", "m-2.safetensors"];
        let (result, asked) = gather(Wanted::Backbone, &files, index);
        assert_eq!(result.unwrap(), None);
        assert_eq!(asked[6..], ["m-1.safetensors", "m-2.safetensors"]);
        let (result, _) = gather(Wanted::Backbone, &files[..3], index);
        assert_eq!(result.unwrap().as_deref(), Some("m-2.safetensors"));
        // Every layout that a folder is read in is fetched.
        for (config, weights) in LAYOUTS {
            let (result, _) = gather(Wanted::Backbone, &[config, weights, "m-1.safetensors", "m-2.safetensors"], index);
            assert_eq!(result.unwrap(), None, "{weights}");
        }
        assert!(gather(Wanted::Backbone, &["config.json"], "").0.unwrap().is_some());
        assert!(gather(Wanted::Backbone, &["model.safetensors"], "").0.unwrap().is_some());
    }

    #[test]
    fn hostile_indexes_are_refused() {
        for index in [
            "<html>",
            "{}",
            "[]",
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": 1}}"#,
            r#"{"weight_map": {"a": "../../x.safetensors"}}"#,
            r#"{"weight_map": {"a": "/etc/passwd"}}"#,
        ] {
            let (result, asked) = gather(Wanted::Backbone, &["config.json", INDEX], index);
            assert_eq!(result.unwrap_err().exit_code() as u8, 4, "{index}");
            assert_eq!(asked.len(), 6, "{index}");
        }
    }
}
