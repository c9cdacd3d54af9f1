//! The layers below what is given, merged into one document: what a choice brings along, what only this machine can say,
//! and the defaults of the schema.

use super::choices;
use super::document::Document;
use super::feature_settings::log_grid;
use super::paths;
use super::schema::{self, alternatives, entry};
use crate::error::Problem;
pub(super) use crate::forms::properties;
use crate::forms::{EXCLUDES, NUMBER, ON};
use serde_json::Value as Schema;
use std::path::Path;
use toml::{Table, Value};

/// The document that the settings are read from: `given`, and below it every layer down to the defaults.
///
/// # Errors
/// When a built-in layer is not TOML.
pub(super) fn merge(given: &Document, schema: &Schema, name: &str, current: &Path) -> Result<Table, Problem> {
    let mut root = given.root.clone();
    expand_all(&mut root, schema);
    for (key, value, text) in choices::layers() {
        if effective(given, schema, key).as_deref() != Some(value) {
            continue;
        }
        let mut layer = Document::parse(&text)?.root;
        // Directions from texts are pretrained like the blocks, and no head that starts from nothing.
        if effective(given, schema, "model.head_init").as_deref() == Some("text")
            && let Some(Value::Table(train)) = layer.get_mut("train")
        {
            train.remove("head_lr");
        }
        expand_all(&mut layer, schema);
        lay_under(&mut root, layer, schema);
    }
    lay_under(&mut root, computed(name, current), schema);
    for (section, inner) in properties(schema) {
        if let Value::Table(table) = root.entry(section).or_insert_with(|| Value::Table(Table::new())) {
            complete(table, inner);
        }
    }
    if let Some(Value::Table(train)) = root.get_mut("train")
        && let Some(lr) = train.get("lr").cloned()
    {
        train.entry("head_lr").or_insert(lr);
    }
    Ok(root)
}

/// The value of a key that holds text: as given, or else its default.
pub(super) fn effective(given: &Document, schema: &Schema, key: &str) -> Option<String> {
    match given.get(key) {
        Some(value) => value.as_str().map(str::to_owned),
        None => schema::at(schema, key.split('.'))?.get("default")?.as_str().map(str::to_owned),
    }
}

/// Defaults that no schema can hold.
fn computed(name: &str, current: &Path) -> Table {
    let text = |path: &Path| path.to_string_lossy().into_owned().into();
    // The 45 values of DINOv2's `eval/log_regression.py`, in the range of CLIP's linear probes.
    let c: Vec<Value> = log_grid(1e-6, 1e5, 45).into_iter().map(Value::Float).collect();
    let k: Vec<Value> = [5, 10, 20, 100, 200].map(Value::Integer).to_vec();
    let section = |keys: Vec<(&str, Value)>| -> Value {
        Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    Table::from_iter([
        ("run".to_owned(), section(vec![("name", name.into()), ("out", text(&current.join("runs")))])),
        ("cache".to_owned(), section(vec![("dir", text(&paths::cache_folder()))])),
        ("probe".to_owned(), section(vec![("c", c.into()), ("k", k.into())])),
    ])
}

/// Adds what `lower` says and `upper` does not; a key gives way to one that it excludes.
fn lay_under(upper: &mut Table, lower: Table, schema: &Schema) {
    for (name, value) in lower {
        let excluded = excluded(upper, &name, schema);
        match (upper.get_mut(&name), value) {
            (Some(Value::Table(upper)), Value::Table(lower)) => {
                if let Some(inner) = entry(schema, &name).and_then(table_form) {
                    lay_under(upper, lower, inner);
                }
            }
            (None, value) if !excluded => {
                upper.insert(name, value);
            }
            _ => {}
        }
    }
}

/// Fills in the defaults of a table, and of the tables in it.
fn complete(table: &mut Table, schema: &Schema) {
    for (name, inner) in properties(schema) {
        if let Some(value) = table.get_mut(name) {
            if let (Value::Table(below), Some(inner)) = (value, table_form(inner)) {
                complete(below, inner);
            }
        } else if !excluded(table, name, schema)
            && let Some(mut value) = inner.get("default").and_then(|value| Value::try_from(value).ok())
        {
            expand(&mut value, inner);
            table.insert(name.clone(), value);
        }
    }
}

/// Whether `table` has a key that excludes `name`.
fn excluded(table: &Table, name: &str, schema: &Schema) -> bool {
    let excludes = |key: &str, other: &str| {
        entry(schema, key)
            .and_then(|inner| inner.get(EXCLUDES)?.as_array())
            .is_some_and(|keys| keys.iter().any(|key| key == other))
    };
    table.keys().any(|other| excludes(name, other) || excludes(other, name))
}

/// Short forms of all values of a table in full.
fn expand_all(table: &mut Table, schema: &Schema) {
    for (name, value) in table.iter_mut() {
        if let Some(inner) = entry(schema, name) {
            expand(value, inner);
        }
    }
}

fn expand(value: &mut Value, schema: &Schema) {
    let numbers = schema.get(NUMBER).and_then(Schema::as_array);
    *value = match (std::mem::replace(value, Value::Boolean(false)), numbers) {
        (Value::Boolean(on), _) if schema.get(ON).is_some() => {
            Value::Float(schema[ON].as_f64().filter(|_| on).unwrap_or(0.0))
        }
        (Value::Boolean(true), Some(_)) => Value::Table(Table::new()),
        (Value::String(word), Some(_)) if word == "auto" => Value::Table(Table::new()),
        (Value::String(word), Some(_)) if word == "none" => Value::Boolean(false),
        (number @ (Value::Integer(_) | Value::Float(_)), Some(keys)) => {
            Value::Table(keys.iter().filter_map(|key| Some((key.as_str()?.to_owned(), number.clone()))).collect())
        }
        (Value::Table(mut table), _) => {
            if let Some(inner) = table_form(schema) {
                expand_all(&mut table, inner);
            }
            Value::Table(table)
        }
        (other, _) => other,
    };
}

/// The form of a value that is a table.
pub(super) fn table_form(schema: &Schema) -> Option<&Schema> {
    alternatives(schema).find(|form| schema::kind(form) == "object")
}
