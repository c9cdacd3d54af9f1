//! The JSON schema of the configuration: published for editors, and what the file is checked against.

use super::settings::Settings;
use crate::forms::NAMES;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, RestrictFormats};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// The JSON schema (draft 2020-12) of the configuration file, indented.
pub fn json_schema() -> String {
    let mut schema = schema().clone();
    strip(&mut schema);
    format!("{schema:#}")
}

/// Leaves out what is noted for the program alone.
fn strip(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|name, _| !name.starts_with("x-"));
            object.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// The same schema as a value, without references and with the notes of `forms`: what a key means stands where the key
/// is. It is made once.
pub(super) fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(generated);
    &SCHEMA
}

fn generated() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(drop_null))
        .with_transform(RecursiveTransform(join_lines))
        .with_transform(RecursiveTransform(close))
        // "uint64" and "double" are schemars' own and mean nothing to editors.
        .with_transform(RestrictFormats::default())
        .into_generator()
        .into_root_schema_for::<Settings>()
        .to_value();
    file_sections(&mut schema);
    schema
}

/// Puts keys that the settings hold beside a section, as `section.key`, into it.
fn file_sections(schema: &mut Value) {
    let Some(sections) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let dotted: Vec<String> = sections.keys().filter(|name| name.contains('.')).cloned().collect();
    for name in dotted {
        if let (Some((section, key)), Some(inner)) = (name.split_once('.'), sections.shift_remove(&name)) {
            sections[section]["properties"][key] = inner;
        }
    }
}

/// Refuses keys that a table does not have, and demands none: what is left out has a default, or is asked for by name.
fn close(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    object.shift_remove("required");
    object.shift_remove("unevaluatedProperties");
    if object.contains_key("properties") {
        object.insert("additionalProperties".into(), false.into());
    }
}

/// Takes back the `null` that schemars allows for each `Option`: TOML has none, an absent key is left out.
fn drop_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    let is_null = |value: &Value| value.is_null() || value == "null" || value.get("type").is_some_and(|t| t == "null");
    for key in ["type", "enum", "anyOf"] {
        if let Some(Value::Array(list)) = object.get_mut(key) {
            list.retain(|value| !is_null(value));
        }
    }
    if let Some(Value::Array(list)) = object.get_mut("type")
        && list.len() == 1
    {
        let only = list.remove(0);
        object.insert("type".into(), only);
    }
    if let Some(Value::Array(list)) = object.get_mut("anyOf")
        && list.len() == 1
    {
        let only = list.remove(0);
        object.shift_remove("anyOf");
        merge(object, only);
    }
}

/// Undoes the line breaks that the width of the source put into a description.
fn join_lines(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// Adds the keywords of `other`; those that are there already (the field's own description) win.
fn merge(object: &mut Map<String, Value>, other: Value) {
    if let Value::Object(other) = other {
        for (key, value) in other {
            object.entry(key).or_insert(value);
        }
    }
}

/// The schema of the key at `path`, when there is one.
pub(super) fn at<'s, 'p>(schema: &'s Value, mut path: impl Iterator<Item = &'p str>) -> Option<&'s Value> {
    path.try_fold(schema, |schema, name| alternatives(schema).find_map(|form| entry(form, name)))
}

/// The schema of the key `name` of a table: its own, or the one for all names where these are free.
pub(super) fn entry<'s>(table: &'s Value, name: &str) -> Option<&'s Value> {
    let own = table.get("properties").and_then(|properties| properties.get(name));
    own.or_else(|| table.get("additionalProperties").filter(|others| others.is_object()))
}

/// The forms a value may take, one by one, however deeply `anyOf` nests them.
pub(super) fn alternatives(schema: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match schema.get("anyOf").and_then(Value::as_array) {
        Some(list) => Box::new(list.iter().flat_map(alternatives)),
        None => Box::new(std::iter::once(schema)),
    }
}

/// The strings an enum allows, when the schema is one.
pub(super) fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(list) = schema.get("oneOf").and_then(Value::as_array) {
        return Some(list.iter().filter_map(|variant| variant.get("const")?.as_str()).collect());
    }
    Some(schema.get("enum")?.as_array()?.iter().filter_map(Value::as_str).collect())
}

/// What the schema asks for, in words: "an integer from 1 to 65536", "true or false, or a table".
pub(super) fn expectation(schema: &Value) -> String {
    let forms: Vec<String> = alternatives(schema).map(describe).collect();
    forms.join(", or ")
}

fn describe(schema: &Value) -> String {
    if let Some(choices) = choices(schema) {
        let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
        return format!("one of {}", quoted.join(", "));
    }
    match kind(schema) {
        "boolean" => "true or false".into(),
        "integer" => format!("an integer{}", limits(schema)),
        "number" => format!("a number{}", limits(schema)),
        "string" => "a string".into(),
        "array" => describe_list(schema),
        "object" => "a table".into(),
        other => other.into(),
    }
}

fn describe_list(schema: &Value) -> String {
    let item = schema.get("items").map_or_else(String::new, |items| format!(", each {}", describe(items)));
    let length = |keyword| schema.get(keyword).and_then(Value::as_u64);
    match (length("minItems"), length("maxItems")) {
        (Some(2), Some(2)) => {
            let names = schema.get(NAMES).and_then(Value::as_str).unwrap_or("[smallest, largest]");
            format!("{names}{item}")
        }
        (Some(least), Some(most)) if least == most => format!("a list of {least}{item}"),
        (Some(least), Some(most)) => format!("a list of {least} to {most}{item}"),
        _ => format!("a list{item}"),
    }
}

/// The `type` keyword; empty for a schema without one.
pub(super) fn kind(schema: &Value) -> &str {
    schema.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// A numeric keyword such as `minimum`.
pub(super) fn limit(schema: &Value, keyword: &str) -> Option<f64> {
    schema.get(keyword).and_then(Value::as_f64)
}

/// The range in words, with a leading space; empty without limits.
fn limits(schema: &Value) -> String {
    // The largest integer of TOML is not worth mentioning as a limit.
    let limit = |keyword: &str| schema.get(keyword).filter(|limit| limit.as_i64() != Some(i64::MAX));
    if let (Some(low), Some(high)) = (limit("minimum"), limit("maximum")) {
        return format!(" from {} to {}", plain(low), plain(high));
    }
    let words =
        [("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below")];
    let parts: Vec<String> =
        words.iter().filter_map(|(keyword, words)| Some(format!("{words} {}", plain(limit(keyword)?)))).collect();
    if parts.is_empty() { String::new() } else { format!(" {}", parts.join(" and ")) }
}

/// A limit without the trailing ".0" of whole floats.
fn plain(limit: &Value) -> String {
    match limit.as_f64() {
        Some(x) if limit.is_f64() => x.to_string(),
        _ => limit.to_string(),
    }
}
