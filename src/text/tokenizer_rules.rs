//! Bounds on what the rules of a tokenizer's file can cost. Without them ten megabytes of rules take gigabytes to compile,
//! and a few hundred bytes make gigabytes of a short prompt.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose as Base64, PAD};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Longest text of a rule, in bytes; the longest pattern in use has a few hundred.
const MOST_IN_A_RULE: usize = 16 << 10;
/// The compiled map of characters is a table in base64, of about 300 kB in use.
const CHARACTERS: &str = "precompiled_charsmap";
const MOST_IN_CHARACTERS: usize = 4 << 20;
/// Values in all rules together.
const MOST_VALUES: usize = 50_000;
/// How many times longer the rules may make a text.
const MOST_GROWTH: u64 = 1 << 16;
/// Bytes of all added tokens together.
const MOST_IN_ADDED: usize = 4 << 20;
/// Bytes of all pieces of a unigram model, which keeps a node for each; the largest in use have 4 MB.
const MOST_IN_PIECES: usize = 16 << 20;

/// The parts of `tokenizer.json` that can cost more than their size.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Pieces,
}

#[derive(Deserialize)]
struct Added {
    content: String,
}

#[derive(Deserialize)]
struct Pieces {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    vocab: Bytes,
}

/// The bytes of all pieces of a vocabulary, which is a map by pieces or a list that begins with them.
#[derive(Default)]
struct Bytes(usize);

/// Refuses a `tokenizer.json` whose rules would take far more than any tokenizer in use.
///
/// # Errors
/// A sentence that says what is too much, or that it is not one.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let rules: TokenizerFile = serde_json::from_slice(json).map_err(|error| format!("is not a tokenizer ({error})"))?;
    let mut found = RuleCount { values: 0, growth: 1 };
    let kinds = [&rules.normalizer, &rules.pre_tokenizer, &rules.post_processor, &rules.decoder];
    kinds.into_iter().try_for_each(|rule| found.add(rule))?;
    let added: usize = rules.added_tokens.iter().map(|token| token.content.len()).sum();
    let Pieces { kind, vocab } = rules.model;
    if found.growth > MOST_GROWTH {
        Err(format!("its rules can make a text more than {MOST_GROWTH} times as long"))
    } else if added > MOST_IN_ADDED {
        Err(format!("its added tokens have {added} bytes; at most {MOST_IN_ADDED} are read"))
    } else if kind == "Unigram" && vocab.0 > MOST_IN_PIECES {
        Err(format!("its pieces have {} bytes; at most {MOST_IN_PIECES} are read", vocab.0))
    } else {
        Ok(())
    }
}

struct RuleCount {
    values: usize,
    growth: u64,
}

impl RuleCount {
    fn add(&mut self, rule: &Value) -> Result<(), String> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(format!("its rules have more than {MOST_VALUES} values"));
        }
        self.growth = self.growth.saturating_mul(growth(rule));
        match rule {
            Value::String(text) => short(text, MOST_IN_A_RULE),
            Value::Array(rules) => rules.iter().try_for_each(|rule| self.add(rule)),
            Value::Object(rules) => rules.iter().try_for_each(|(key, rule)| match rule {
                Value::String(text) if key == CHARACTERS => short(text, MOST_IN_CHARACTERS),
                _ => short(key, MOST_IN_A_RULE).and_then(|()| self.add(rule)),
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }
}

/// How many times longer one rule alone can make a text.
fn growth(rule: &Value) -> u64 {
    match rule["type"].as_str() {
        // An expression may match between any two characters.
        Some("Replace") => {
            let content = rule["content"].as_str().map_or(0, str::len) as u64;
            if rule["pattern"]["Regex"].is_null() { content.max(1) } else { content + 1 }
        }
        // A character of one byte may become the longest of its texts.
        Some("Precompiled") => longest(rule[CHARACTERS].as_str().unwrap_or_default()).max(1),
        // Every byte becomes a character, of two bytes at most.
        Some("ByteLevel") => 2,
        Some("TemplateProcessing") => {
            let texts = |key: &str| {
                let items = rule[key].as_array().map_or(&[][..], Vec::as_slice);
                items.iter().filter(|item| !item["Sequence"].is_null()).count() as u64
            };
            texts("single").max(1)
        }
        _ => 1,
    }
}

/// Bytes of the longest text that a compiled map of characters has for one of them. The map is base64 of the length of its
/// tree in four bytes, the tree, and the texts with a zero byte behind each; all of it counts where the length is none.
fn longest(map: &str) -> u64 {
    let decoded = Base64::new(&STANDARD, PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent)).decode(map);
    // What is no base64 is refused by the library.
    let bytes = decoded.unwrap_or_default();
    let tree = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize / 4 * 4);
    let texts = bytes.get(4..).and_then(|rest| rest.get(tree..)).unwrap_or(&bytes);
    texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0) as u64
}

fn short(text: &str, most: usize) -> Result<(), String> {
    if text.len() <= most {
        return Ok(());
    }
    let start: String = text.chars().take(20).collect();
    Err(format!("the rule {start:?}… has {} bytes; at most {most} are read", text.len()))
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Vocabulary;
        impl<'de> Visitor<'de> for Vocabulary {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bytes, A::Error> {
                let mut bytes = 0;
                while let Some((piece, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    bytes += piece.len();
                }
                Ok(Bytes(bytes))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pieces: A) -> Result<Bytes, A::Error> {
                let mut bytes = 0;
                while let Some((piece, IgnoredAny)) = pieces.next_element::<(String, IgnoredAny)>()? {
                    bytes += piece.len();
                }
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_any(Vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(rules: &Value) -> String {
        let mut file = json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}});
        file.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        check(file.to_string().as_bytes()).map_or_else(|reason| reason, |()| "fine".into())
    }

    #[test]
    fn what_would_cost_gigabytes_is_refused_and_what_is_in_use_is_not() {
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let sequence = |rules: Vec<Value>| json!({"normalizer": {"type": "Sequence", "normalizers": rules}});
        let long = "a".repeat(10 << 20);
        let split = |pattern: &str| json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}}});
        let template = |texts: usize| {
            let template =
                json!({"type": "TemplateProcessing", "single": vec![json!({"Sequence": {"id": "A"}}); texts]});
            json!({"post_processor": {"type": "Sequence", "processors": [template, template, template]}})
        };
        // Its tree has eight bytes; "aaaa…" of so many characters.
        let characters = |texts: usize| {
            let map = format!("CAAAAAAAAAAAAAAA{}", "YWFh".repeat(texts / 3));
            json!({"type": "Precompiled", "precompiled_charsmap": map})
        };
        let unigram = json!({"model": {"type": "Unigram", "vocab": [["a".repeat(17 << 20), 0.0]]}});
        for (rules, said) in [
            (split(r"'s|[\p{L}]+|[^\s\p{L}\p{N}]+"), "fine"),
            (sequence(vec![replace(json!({"Regex": r"\s+"}), " "), replace(json!({"String": " "}), "▁")]), "fine"),
            (sequence(vec![replace(json!({"String": "!"}), ""); 500]), "fine"),
            (template(1), "fine"),
            (sequence(vec![characters(33)]), "fine"),
            (sequence(vec![characters(33); 4]), "times as long"),
            (sequence(vec![characters(99_999)]), "times as long"),
            (split(&long), "10485760 bytes"),
            (sequence(vec![replace(json!({"String": "a"}), "aaaaaaaa"); 40]), "times as long"),
            (sequence(vec![replace(json!({"Regex": ""}), "a"); 40]), "times as long"),
            (sequence(vec![json!({"type": "ByteLevel"}); 40]), "times as long"),
            (template(1000), "times as long"),
            (sequence(vec![json!({"type": "NFC"}); 50_000]), "50000 values"),
            (json!({"added_tokens": [{"content": long}]}), "added tokens"),
            (unigram, "pieces"),
            (json!({"model": 1}), "not a tokenizer"),
        ] {
            let found = checked(&rules);
            assert!(found.contains(said), "{found} where {said} is expected");
        }
    }

    #[test]
    fn the_longest_text_of_a_map_is_found() {
        // 0, 1, 2 bytes in the last group; the tree is "tree", the texts "a", "bcd" and "ef".
        for (map, bytes) in [
            ("BAAAAHRyZWVhAGJjZABlZgA=", 3),
            ("BAAAAHRyZWVhAGJjZABlZg==", 3),
            ("BAAAAHRyZWVhAGJjZGU=", 4),
            ("", 0),
            ("/////2E=", 5),
            ("BAAA", 1),
            ("A", 0),
        ] {
            assert_eq!(longest(map), bytes, "{map}");
        }
        let siglip: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/text/hf_siglip/tokenizer.json")).unwrap();
        assert_eq!(growth(&siglip["normalizer"]["normalizers"][0]), 33);
    }
}
