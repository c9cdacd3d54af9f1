//! A tokenizer's files, in a folder beside the weights.

use super::tokenizer_rules;
use crate::error::{Error, Result, WeightsError};
use crate::system::files::read_at_most;
use crate::system::json::parse_json;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Above the largest tokenizer in use, that of `SigLIP` 2 with 34 MB: a wrong file must not fill the memory.
const LARGEST: u64 = 64 << 20;

/// The tokenizer of a folder.
pub(super) struct TokenizerFiles {
    /// The file that holds it, for messages.
    pub path: PathBuf,
    /// In the form of `tokenizer.json`.
    pub tokenizer: tokenizers::Tokenizer,
    /// `tokenizer_config.json`; null without one.
    pub config: Value,
    /// The text of the padding token, if one is named.
    pub padding: Option<String>,
    /// The text of the token that separates sentences; BERT's where none is named.
    pub separator: String,
}

impl TokenizerFiles {
    /// Reads `tokenizer.json`, or `vocab.json` with `merges.txt`, which only CLIP has.
    ///
    /// # Errors
    /// A weights error that names the missing or damaged file.
    pub fn read(folder: &Path) -> Result<Self> {
        let has = |name: &str| folder.join(name).is_file();
        let (path, bytes) = if has("tokenizer.json") {
            let path = folder.join("tokenizer.json");
            let bytes = read(&path)?;
            (path, bytes)
        } else if has("vocab.json") && has("merges.txt") {
            (folder.join("vocab.json"), clip_tokenizer(folder)?.to_string().into_bytes())
        } else {
            return Err(missing(folder).into());
        };
        tokenizer_rules::check(&bytes).map_err(|reason| WeightsError::invalid(&path, reason))?;
        // The library trusts what it reads: some files make it panic.
        let opened = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(&bytes));
        let mut tokenizer = opened
            .map_err(|_| WeightsError::invalid(&path, "is not a tokenizer that its library can read"))?
            .map_err(|error| WeightsError::invalid(&path, format!("is not a tokenizer ({error})")))?;
        // A text that is too long is an error here, and the context is filled by the library's own rule.
        let saved_padding = tokenizer.get_padding().map(|padding| padding.pad_token.clone());
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| WeightsError::invalid(&path, error.to_string()))?;
        let config = optional(&folder.join("tokenizer_config.json"))?;
        let special = optional(&folder.join("special_tokens_map.json"))?;
        let named = |key: &str| token_text(&config[key]).or_else(|| token_text(&special[key]));
        let padding = named("pad_token").or(saved_padding);
        let separator = named("sep_token").unwrap_or_else(|| "[SEP]".into());
        Ok(Self { path, tokenizer, config, padding, separator })
    }
}

/// A special token is a text, or a table with its text.
fn token_text(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = read_at_most(path, LARGEST).map_err(Error::io("read", path))?;
    bytes.ok_or_else(|| WeightsError::invalid(path, "is too large for the file of a tokenizer").into())
}

fn read_json(path: &Path) -> Result<Value> {
    parse_json(path, &read(path)?)
}

fn optional(path: &Path) -> Result<Value> {
    if path.is_file() { read_json(path) } else { Ok(Value::Null) }
}

/// The `tokenizer.json` that transformers makes of CLIP's vocabulary and merges (`tokenization_clip.py`).
fn clip_tokenizer(folder: &Path) -> Result<Value> {
    const START: &str = "<|startoftext|>";
    const END: &str = "<|endoftext|>";
    let path = folder.join("vocab.json");
    let vocab = read_json(&path)?;
    let number = |token: &str| {
        let absent = || WeightsError::invalid(&path, format!("has no {token}, so it is not CLIP's vocabulary"));
        vocab[token].as_u64().ok_or_else(absent)
    };
    let (start, end) = (number(START)?, number(END)?);
    let merges = read(&folder.join("merges.txt"))?;
    let merges = String::from_utf8_lossy(&merges);
    // The first line tells the version. Merges themselves may begin with a #.
    let merges: Vec<&str> = merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let special = |id: u64, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    };
    let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    Ok(json!({
        "version": "1.0",
        "padding": {
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_id": end,
            "pad_type_id": 0, "pad_token": END,
        },
        "added_tokens": [special(start, START), special(end, END)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, end], "cls": [START, start], "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges,
        },
    }))
}

fn missing(folder: &Path) -> WeightsError {
    let hint = if folder.join("spiece.model").is_file() {
        "spiece.model is not read; make tokenizer.json of it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    } else {
        "copy these files of the model's repository beside its weights"
    };
    WeightsError::Invalid {
        path: folder.to_path_buf(),
        reason:
            "has no tokenizer, which turns prompts into tokens: neither tokenizer.json nor vocab.json with merges.txt"
                .into(),
        hint: Some(hint.into()),
    }
}
