//! `docs/config.md`, written from the schema: every key with what it may be, its default and what it means.

use super::*;
use serde_json::{Map, Value};

const HEAD: &str = "\
<!-- Written from the schema: VITADAPT_RENEW=1 cargo test --lib config_reference -->
# Config reference

Every key of the TOML file. Every section but `[data]` may be left out, and so may every key but `data.root` or
`data.manifest`. Paths in the file are relative to the file. `--set section.key=value` overrides a key from the command
line. Editors complete the file with the help of
[vitadapt.schema.json](../configs/vitadapt.schema.json), which `vitadapt schema` prints too. The files in
[configs/](../configs) are examples.
";

/// The page is the schema's: with `VITADAPT_RENEW` set it is written, otherwise compared.
#[test]
fn config_reference_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let page = page(schema::schema());
    if std::env::var_os("VITADAPT_RENEW").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == page, "renew docs/config.md: VITADAPT_RENEW=1 cargo test --lib config_reference");
}

fn page(schema: &Value) -> String {
    let sections = tables(schema).flatten();
    let links: Vec<String> = sections.clone().map(|(name, _)| format!("[{name}](#{name})")).collect();
    let mut page = format!("{HEAD}\nSections: {}.\n", links.join(", "));
    sections.for_each(|(name, section)| chapter(&mut page, 2, name, section));
    page
}

/// The properties of a schema, for each of its forms that is a table.
fn tables(schema: &Value) -> impl Iterator<Item = &Map<String, Value>> + Clone {
    let forms: Vec<&Value> = schema::alternatives(schema).collect();
    forms.into_iter().filter_map(|form| form.get("properties")?.as_object())
}

/// A table of keys, then one for each key that may be a table itself.
fn chapter(page: &mut String, level: usize, name: &str, section: &Value) {
    let keys: Vec<(&String, &Value)> = tables(section).flatten().collect();
    page.push_str(&format!("\n{} {name}\n", "#".repeat(level)));
    if level == 2 {
        page.push_str(&format!("{}\n", description(section)));
    }
    page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for (key, schema) in &keys {
        let default = schema.get("default").map_or_else(String::new, |value| format!("`{}` ", toml_value(value)));
        page.push_str(&format!("| `{key}` | {} | {default}| {} |\n", values(schema), meaning(schema)));
    }
    for (key, schema) in keys.into_iter().filter(|(_, schema)| tables(schema).next().is_some()) {
        chapter(page, level + 1, &document::join(name, key), schema);
    }
}

/// What the key may be: the words of the error messages, for a choice its names.
fn values(schema: &Value) -> String {
    match schema::choices(schema) {
        Some(choices) => choices.iter().map(|choice| format!("`\"{choice}\"`")).collect::<Vec<_>>().join(", "),
        None => schema::expectation(schema),
    }
}

/// The description of the key, then that of each choice.
fn meaning(schema: &Value) -> String {
    let mut text = description(schema).to_owned();
    for form in schema::alternatives(schema) {
        for choice in form.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            text.push_str(&format!("<br>`{}`: {}", choice["const"].as_str().unwrap(), description(choice)));
        }
    }
    text.replace('|', "\\|")
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
