//! Checks the values against the schema: unknown keys, wrong types, values outside their choices or range.
//!
//! What is wrong is reported and taken out, so that the rest can be read and its problems reported too.

use super::document::{Document, join, shown};
use super::schema::{alternatives, choices, entry, expectation, kind, limit};
use super::suggest;
use crate::error::{Place, Problem};
use crate::forms::{NAMES, UNIQUE};
use crate::system::shown::counted;
use serde_json::Value as Schema;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The problems, in the order they were met.
    pub problems: Vec<Problem>,
    /// Keys whose values were taken out: what depends on them is not judged.
    broken: BTreeSet<String>,
}

impl Findings {
    /// Notes a problem of `key`.
    pub(super) fn add(&mut self, place: Place, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem { place, key: key.into(), message: message.into(), hint: Some(hint.into()) });
    }

    /// Whether the value of `key`, or of a table around it, was taken out.
    pub(super) fn is_broken(&self, key: &str) -> bool {
        key.match_indices('.').any(|(dot, _)| self.broken.contains(&key[..dot])) || self.broken.contains(key)
    }
}

/// Checks the whole document, taking out what is wrong.
pub(super) fn check(document: &mut Document, schema: &Schema) -> Findings {
    let mut root = std::mem::take(&mut document.root);
    let mut checker = Checker { document, schema, findings: Findings::default() };
    checker.table("", &mut root, schema);
    let findings = checker.findings;
    document.root = root;
    findings
}

struct Checker<'a> {
    document: &'a Document,
    schema: &'a Schema,
    findings: Findings,
}

impl Checker<'_> {
    /// Checks the entries of a table, dropping those that are wrong.
    fn table(&mut self, prefix: &str, table: &mut Table, schema: &Schema) {
        table.retain(|name, value| {
            let key = join(prefix, name);
            let good = if let Some(known) = entry(schema, name) {
                self.value(&key, value, known)
            } else {
                self.unknown((&key, name), prefix, value, schema);
                false
            };
            if !good {
                self.findings.broken.insert(key);
            }
            good
        });
    }

    /// Whether the value is usable.
    fn value(&mut self, key: &str, value: &mut Value, schema: &Schema) -> bool {
        let Some(form) = alternatives(schema).find(|form| fits(kind_of(form), value)) else {
            self.problem(key, format!("{} is {}", shown(value), type_name(value)), schema);
            return false;
        };
        match value {
            Value::Table(table) => {
                self.table(key, table, form);
                true
            }
            other => match fault(other, form) {
                Some(message) => {
                    self.refuse(key, other, message, schema);
                    false
                }
                None => true,
            },
        }
    }

    fn refuse(&mut self, key: &str, value: &Value, message: String, schema: &Schema) {
        let close = value.as_str().and_then(|text| suggest::closest(text, choices(schema)?));
        match close {
            Some(close) => {
                let hint = format!("did you mean \"{close}\"? {}", sentence(&expectation(schema)));
                self.findings.add(self.document.place(key), key, message, hint);
            }
            None => self.problem(key, message, schema),
        }
    }

    fn problem(&mut self, key: &str, message: String, schema: &Schema) {
        self.findings.add(self.document.place(key), key, message, format!("expected {}", expectation(schema)));
    }

    fn unknown(&mut self, (key, name): (&str, &str), prefix: &str, value: &Value, schema: &Schema) {
        let what = if prefix.is_empty() { "unknown section" } else { "unknown key" };
        let hint = suggest::for_unknown(prefix, name, value, schema, self.schema);
        self.findings.add(self.document.place(key), key, what, hint);
    }
}

/// The JSON type of one form; an enum counts as text.
fn kind_of(form: &Schema) -> &str {
    if choices(form).is_some() { "string" } else { kind(form) }
}

fn fits(kind: &str, value: &Value) -> bool {
    matches!(
        (kind, value),
        ("boolean", Value::Boolean(_))
            | ("integer" | "number", Value::Integer(_))
            | ("number", Value::Float(_))
            | ("string", Value::String(_))
            | ("array", Value::Array(_))
            | ("object", Value::Table(_))
    )
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::String(_) => "a string",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// What is wrong with a value of the right type.
fn fault(value: &Value, schema: &Schema) -> Option<String> {
    match value {
        Value::Integer(number) => out_of_range(*number as f64, schema).then(|| format!("{number} is out of range")),
        Value::Float(number) if !number.is_finite() => Some(format!("{} is not a finite number", shown(value))),
        Value::Float(number) => out_of_range(*number, schema).then(|| format!("{} is out of range", shown(value))),
        Value::String(text) => text_fault(text, schema),
        Value::Array(list) => list_fault(value, list, schema),
        _ => None,
    }
}

fn out_of_range(number: f64, schema: &Schema) -> bool {
    limit(schema, "minimum").is_some_and(|low| number < low)
        || limit(schema, "exclusiveMinimum").is_some_and(|low| number <= low)
        || limit(schema, "maximum").is_some_and(|high| number > high)
        || limit(schema, "exclusiveMaximum").is_some_and(|high| number >= high)
}

fn text_fault(text: &str, schema: &Schema) -> Option<String> {
    if let Some(choices) = choices(schema) {
        return (!choices.contains(&text)).then(|| format!("unknown value {}", shown(&text.into())));
    }
    // The only length the schema asks for is "not empty".
    (text.is_empty() && limit(schema, "minLength").is_some()).then(|| "is empty".into())
}

fn list_fault(value: &Value, list: &[Value], schema: &Schema) -> Option<String> {
    let n = list.len();
    let too_few = limit(schema, "minItems").is_some_and(|least| (n as f64) < least);
    if too_few || limit(schema, "maxItems").is_some_and(|most| n as f64 > most) {
        return Some(format!("{} has {}", shown(value), counted(n, "item")));
    }
    let item = schema.get("items")?;
    let of_items = list.iter().find_map(|entry| {
        if fits(kind_of(item), entry) {
            fault(entry, item)
        } else {
            Some(format!("{} is {}", shown(entry), type_name(entry)))
        }
    });
    of_items.or_else(|| disorder(value, list, schema)).or_else(|| repetition(list, schema))
}

/// A list that has to have two numbers is a range, unless they have names.
fn disorder(value: &Value, list: &[Value], schema: &Schema) -> Option<String> {
    limit(schema, "maxItems").filter(|most| *most == 2.0 && schema.get(NAMES).is_none())?;
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
    let [low, high] = list else { return None };
    (number(low)? > number(high)?).then(|| format!("{} ends before it begins", shown(value)))
}

fn repetition(list: &[Value], schema: &Schema) -> Option<String> {
    schema.get(UNIQUE)?;
    let twice = list.iter().enumerate().find(|(at, entry)| list[..*at].contains(entry))?.1;
    Some(format!("{} is there twice", shown(twice)))
}

/// Upper case at the start.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
