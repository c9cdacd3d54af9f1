//! The files of `configs/`.

use super::*;
use std::path::PathBuf;

#[test]
fn every_shipped_configuration_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let files: Vec<PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(files.len() >= 4);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(text.starts_with("#:schema ./vitadapt.schema.json\n"), "{name} names no schema");
        let command =
            ["finetune", "zeroshot", "compare"].map(|command| format!("vitadapt {command} --config configs/{name}"));
        assert!(command.iter().any(|command| text.contains(command)), "the header of {name} lacks its command");
        for word in ["Score:", "Run time:"] {
            assert!(text.contains(word), "the header of {name} lacks {word:?}");
        }
        load(Some(&file), &[]).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_published_schema_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/vitadapt.schema.json");
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(published == format!("{}\n", json_schema()), "renew it: vitadapt schema > configs/vitadapt.schema.json");
}

/// Every operation of `[augment]` that has keys of its own.
const ALL_ON: &str = "augment = { crop = true, color = true, stains = true, scratches = true, occlusion = true, \
    illumination = true, blur = true, stripes = true, noise = true, jpeg = true, erasing = true }";

/// What editors show as a default is what resolving fills in.
#[test]
fn schema_defaults_are_the_real_ones() {
    let resolved = serde_json::to_value(Raw::from(&settings(ALL_ON))).unwrap();
    let schema = schema::schema();
    let mut seen = 0;
    compare_defaults("", &schema, &resolved, &mut seen);
    assert!(seen > 60, "only {seen} defaults found in the schema");
}

fn compare_defaults(key: &str, schema: &serde_json::Value, resolved: &serde_json::Value, seen: &mut usize) {
    if let Some(default) = schema.get("default") {
        let same = match (default.as_f64(), resolved.as_f64()) {
            (Some(default), Some(resolved)) => default == resolved,
            _ => default == resolved,
        };
        assert!(same, "{key}: the schema says {default}, resolving says {resolved}");
        *seen += 1;
    }
    for form in schema::alternatives(schema) {
        for (name, inner) in form.get("properties").and_then(serde_json::Value::as_object).into_iter().flatten() {
            compare_defaults(&document::join(key, name), inner, &resolved[name], seen);
        }
    }
}
