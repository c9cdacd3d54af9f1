//! Data flows one way: a module uses only modules before it.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

use std::fs;
use std::path::{Path, PathBuf};

const ORDER: &[&[&str]] = &[
    &["error", "rng", "system"],
    &["config"],
    &["kernels"],
    &["cache", "data", "hub", "linalg", "nn"],
    &["backbone"],
    &["strategy", "features", "text"],
    &["metrics"],
    &["probe", "tsne"],
    &["train"],
    &["export"],
    &["report"],
    &["ladder"],
    &["experiment"],
    &["commands"],
];

fn level(module: &str) -> usize {
    ORDER.iter().position(|level| level.contains(&module)).unwrap_or_else(|| panic!("{module} has no place in ORDER"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn modules_use_only_what_comes_before_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut checked = 0;
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for (at, _) in code.match_indices("crate::") {
                let used = code[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if used.is_empty() || used == module {
                    continue;
                }
                assert!(
                    level(used) < level(module) || (level(used) == level(module) && level(module) == 0),
                    "{}:{} uses crate::{used}, which comes after {module}",
                    relative.display(),
                    number + 1
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 50, "only {checked} uses were found");
}
