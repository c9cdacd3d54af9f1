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
        let command = ["finetune", "probe", "zeroshot", "compare"]
            .map(|command| format!("vitadapt {command} --config configs/{name}"));
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
    let schema = format!("{}\n", json_schema());
    if std::env::var_os("VITADAPT_RENEW").is_some() {
        std::fs::write(&file, &schema).unwrap();
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(published == schema, "renew configs/vitadapt.schema.json: VITADAPT_RENEW=1 cargo test --lib published");
}

/// What editors show as a default is what an empty configuration is read as, and what is written.
#[test]
fn schema_defaults_are_the_real_ones() {
    // Every operation that has keys of its own.
    let schema = schema::schema();
    let operations = layers::properties(&schema["properties"]["augment"]);
    let operations: String = operations
        .filter(|(_, inner)| layers::table_form(inner).is_some())
        .map(|(name, _)| format!("augment.{name} = true\n"))
        .collect();
    let all_on = format!("preprocess.tiles = true\n{operations}");
    let written: toml::Table = settings(&all_on).to_toml().unwrap().parse().unwrap();
    let mut seen = 0;
    compare_defaults("", schema, &serde_json::to_value(written).unwrap(), &mut seen);
    assert!(seen > 60, "only {seen} defaults found in the schema");
}

fn compare_defaults(key: &str, schema: &serde_json::Value, written: &serde_json::Value, seen: &mut usize) {
    // Off by default; what is compared are the defaults of its keys.
    let is_switched_on = key == "preprocess.tiles" && written.is_object();
    if let Some(default) = schema.get("default").filter(|_| !is_switched_on) {
        let same = match (default.as_f64(), written.as_f64()) {
            (Some(default), Some(written)) => default == written,
            _ => default == written,
        };
        assert!(same, "{key}: the schema says {default}, what is written {written}");
        *seen += 1;
    }
    for form in schema::alternatives(schema) {
        for (name, inner) in form.get("properties").and_then(serde_json::Value::as_object).into_iter().flatten() {
            compare_defaults(&document::join(key, name), inner, &written[name], seen);
        }
    }
}

/// A recipe, a preset or the keys of a loss are layers of the configuration, checked against the schema like any other.
#[test]
fn layers_of_choices_have_known_keys_and_values_in_range() {
    for (key, value, text) in choices::layers() {
        let mut layer = document::Document::parse(&text).unwrap_or_else(|problem| panic!("{key} = {value}: {problem}"));
        let findings = check::check(&mut layer, schema::schema());
        assert!(findings.problems.is_empty(), "{key} = {value}: {:?}", findings.problems);
        let choice = schema::at(schema::schema(), key.split('.'))
            .and_then(schema::choices)
            .is_some_and(|all| all.contains(&value));
        assert!(choice, "{key} has no value {value}");
    }
}
