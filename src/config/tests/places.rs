//! In how many source files a key is named: what CONTRIBUTING promises about adding one.

use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Source files below `folder` that have something `named`, tests left out.
fn naming(folder: &Path, named: &dyn Fn(&str) -> bool, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                naming(&path, named, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && name != "tests.rs"
            && !name.ends_with("_tests.rs")
        {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            if named(code) {
                let root = Path::new(env!("CARGO_MANIFEST_DIR"));
                found.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
}

fn files(named: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = BTreeSet::new();
    for folder in ["src", "core/src"] {
        naming(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), named, &mut found);
    }
    found.into_iter().collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Files that declare or read the field `key`.
fn files_with_field(key: &str) -> Vec<String> {
    let declared = format!("pub {key}:");
    let read = format!(".{key}");
    files(&|code| {
        let reads = code.match_indices(&read).any(|(at, _)| words(&code[at + 1..]).next() == Some(key));
        reads || code.contains(&declared)
    })
}

/// The worked example of a key, and one that took six files: the field, and what uses it.
#[test]
fn a_key_is_its_field_and_what_uses_it() {
    for key in ["label_smoothing", "sam"] {
        let mut files = files_with_field(key);
        files.retain(|file| file != "src/config/aliases.rs"); // what other programs call keys
        assert!(files.len() <= 3, "{key}: {files:?}");
        let of_config: Vec<&String> = files.iter().filter(|file| file.starts_with("src/config")).collect();
        assert_eq!(of_config, ["src/config/train_settings.rs"], "{key}");
    }
}

/// The worked example of an augmentation: its file, its line in the registry (a preset may switch it on), its row.
#[test]
fn an_augmentation_is_one_file_a_line_and_a_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/augmentations.md");
    let page = fs::read_to_string(page).unwrap();
    for key in ["stripes", "scratches", "occlusion"] {
        let own = format!("src/augment/{key}.rs");
        let files = files(&|code| words(code).any(|word| word.eq_ignore_ascii_case(key)));
        let known = [own.as_str(), "src/augment/mod.rs", "src/augment/preset.rs"];
        assert!(files.iter().all(|file| known.contains(&file.as_str())), "{key}: {files:?}");
        assert!(page.contains(&format!("| `{key}` |")), "docs/augmentations.md has no row for {key}");
    }
    for operation in layers::properties(&schema::schema()["properties"]["augment"]).map(|(name, _)| name) {
        assert!(operation == "preset" || page.contains(&format!("`{operation}`")), "{operation} has no row");
    }
}
