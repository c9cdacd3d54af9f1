//! What the libraries do to a text before its tokenizer sees it.
//!
//! References: `open_clip`'s `tokenizer.py`, transformers' `tokenization_siglip.py` and `tokenization_siglip2.py`.

use crate::backbone::Cleaning;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

/// Cleans `text`; `tokenizer_config` tells the classes of `SigLIP`'s tokenizers apart.
pub(super) fn clean(text: &str, cleaning: Cleaning, tokenizer_config: &Value) -> String {
    match cleaning {
        Cleaning::AsIs => text.to_owned(),
        Cleaning::Siglip => siglip(text, tokenizer_config),
        Cleaning::Whitespace => single_spaces(&basic(text)),
        Cleaning::Lower => single_spaces(&basic(text)).to_lowercase(),
        Cleaning::Canonical => single_spaces(&without_punctuation(&basic(text).replace('_', " ")).to_lowercase()),
    }
}

/// `SiglipTokenizer` drops punctuation and, unless told otherwise, case. `SigLIP` 2 was trained on lower case alone; its
/// tokenizer is saved as Gemma's, which would keep the case.
fn siglip(text: &str, tokenizer_config: &Value) -> String {
    let class = tokenizer_config["tokenizer_class"].as_str().unwrap_or("SiglipTokenizer");
    if class.starts_with("Gemma") || class.starts_with("Siglip2") {
        return text.to_lowercase();
    }
    let lower = tokenizer_config["do_lower_case"].as_bool().unwrap_or(true);
    let text = if lower { text.to_lowercase() } else { text.to_owned() };
    single_spaces(&without_punctuation(&text))
}

/// `open_clip` runs ftfy, then resolves character references twice. Of ftfy's repairs those that a text in UTF-8 can
/// need are here: straight quotes, ligatures and wide characters as plain letters, composed characters. Text that was
/// decoded wrongly somewhere is not repaired.
fn basic(text: &str) -> String {
    let mut letters = String::with_capacity(text.len());
    for c in text.chars() {
        if is_compatibility_form(c) {
            letters.extend(std::iter::once(c).nfkc());
        } else {
            letters.push(c);
        }
    }
    unescape(&unescape(&letters.chars().map(straight).nfc().collect::<String>()))
}

/// A quotation mark as a typewriter has it.
fn straight(c: char) -> char {
    match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        other => other,
    }
}

/// Ligatures, full-width letters and half-width Japanese.
fn is_compatibility_form(c: char) -> bool {
    matches!(c, '\u{132}' | '\u{133}' | '\u{149}' | '\u{1c4}'..='\u{1cc}' | '\u{1f1}'..='\u{1f3}' | '\u{fb00}'..='\u{fb06}')
        || matches!(c, '\u{3000}' | '\u{ff01}'..='\u{ffef}')
}

/// Resolves numeric character references and the named ones that editors write; others stay as they are.
fn unescape(text: &str) -> String {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        let (before, reference) = rest.split_at(start);
        resolved.push_str(before);
        let end = reference.find(';').unwrap_or(0);
        if let Some(found) = character(reference.get(1..end).unwrap_or_default()) {
            resolved.push(found);
            rest = &reference[end + 1..];
        } else {
            resolved.push('&');
            rest = &reference[1..];
        }
    }
    resolved + rest
}

/// The character of a reference without its `&` and `;`.
fn character(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let number = reference.strip_prefix('#')?;
            let hexadecimal = number.strip_prefix(['x', 'X']).map(|digits| u32::from_str_radix(digits, 16).ok());
            char::from_u32(hexadecimal.unwrap_or_else(|| number.parse().ok())?)
        }
    }
}

fn without_punctuation(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

fn single_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn each_library_cleans_in_its_own_way() {
        let text = "  A “Deep_cut”,\tit's  5&amp;amp;6 &lt;mm&gt; ";
        let cleaned = |cleaning| clean(text, cleaning, &Value::Null);
        assert_eq!(cleaned(Cleaning::AsIs), text);
        assert_eq!(cleaned(Cleaning::Whitespace), "A \"Deep_cut\", it's 5&6 <mm>");
        assert_eq!(cleaned(Cleaning::Lower), "a \"deep_cut\", it's 5&6 <mm>");
        assert_eq!(cleaned(Cleaning::Canonical), "a deep cut its 56 mm");
        // transformers' SigLIP removes the underscore, where open_clip's makes it a space, and knows no references.
        assert_eq!(cleaned(Cleaning::Siglip), "a “deepcut” its 5ampamp6 ltmmgt");
    }

    #[test]
    fn siglip_tokenizers_differ_by_class() {
        let cleaned = |config| clean("A_b. C", Cleaning::Siglip, &config);
        assert_eq!(cleaned(json!({ "tokenizer_class": "SiglipTokenizer", "do_lower_case": false })), "Ab C");
        assert_eq!(cleaned(json!({ "tokenizer_class": "GemmaTokenizerFast" })), "a_b. c");
        assert_eq!(cleaned(json!({ "tokenizer_class": "Siglip2Tokenizer" })), "a_b. c");
    }

    #[test]
    fn references_are_resolved_where_there_are_any() {
        let table = [
            ("&#39;&#x41;&#X42;", "'AB"),
            ("a & b", "a & b"),
            ("&unknown; &;", "&unknown; &;"),
            ("&#xD800;&#99999999999;&#;", "&#xD800;&#99999999999;&#;"),
            ("ü&amp", "ü&amp"),
            ("&ü;", "&ü;"),
            ("&amp;lt;", "&lt;"),
        ];
        for (text, expected) in table {
            assert_eq!(unescape(text), expected);
        }
    }

    proptest! {
        #[test]
        fn cleaning_never_fails_and_ends(text in "\\PC{0,40}|[&#;xampltgt0-9 ]{0,40}") {
            for cleaning in [Cleaning::Lower, Cleaning::Canonical, Cleaning::Siglip] {
                let once = clean(&text, cleaning, &Value::Null);
                prop_assert!(!once.contains("  ") && once.trim() == once);
            }
        }
    }
}
