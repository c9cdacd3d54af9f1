//! Keys checked against each other: those that exclude each other, and those that belong to a choice. Both are noted in the
//! schema; what else depends on several keys is in `settle`.

use super::check::Findings;
use super::document::{Document, join};
use super::layers::{effective, properties, table_form};
use super::paths::Bases;
use crate::error::Place;
use crate::forms::{EXCLUDES, ONLY};
use serde_json::Value as Schema;
use std::path::Path;
use toml::Value;

/// Checks what is given and collects the problems.
pub(super) struct RuleCheck<'a> {
    /// The file with the overrides over it. What is refused or silenced is taken out.
    pub given: &'a mut Document,
    /// What the keys are.
    pub schema: &'a Schema,
    /// Receives the problems.
    pub findings: &'a mut Findings,
    /// What paths are relative to.
    pub bases: &'a Bases,
}

impl RuleCheck<'_> {
    /// Notes a problem of one value.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.add(self.given.place(key), key, message, hint);
    }

    /// Notes that `key` does not go with `others`, unless one of them was refused already: judging it by a default
    /// that stands in for a typo would only confuse.
    pub(super) fn conflict(&mut self, key: &str, others: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        if !self.any_broken(key, others) {
            self.problem(key, message, hint);
        }
    }

    /// Notes that `key` is missing, at the line of its section, with the same exception.
    pub(super) fn missing(&mut self, key: &str, others: &[&str], hint: &str) {
        if self.any_broken(key, others) {
            return;
        }
        let place = match self.given.place(key) {
            Place::Line(line) => Place::Line(line),
            Place::Absent | Place::Set(_) | Place::Argument(_) => Place::Absent,
        };
        self.findings.add(place, key, "is missing", hint);
    }

    /// Whether an override of `key` makes `other` of the file moot: sweeping `strategy.kind` from the command line
    /// must not trip over the keys of the kind in the file.
    pub(super) fn supersedes(&self, key: &str, other: &str) -> bool {
        self.given.is_overridden(key) && !self.given.is_overridden(other)
    }

    /// The folder that paths in `key` are relative to.
    pub(super) fn base(&self, key: &str) -> &Path {
        if self.given.is_overridden(key) { &self.bases.current } else { &self.bases.file }
    }

    /// The text that `key` holds, as given or by default.
    pub(super) fn effective(&self, key: &str) -> Option<String> {
        effective(self.given, self.schema, key)
    }

    /// Checks the keys of the table at `prefix`, and of the tables in it, against each other.
    pub(super) fn keys(&mut self, prefix: &str, schema: &Schema) {
        for (name, inner) in properties(schema) {
            let key = join(prefix, name);
            if self.given.get(&key).is_none() {
                continue;
            }
            self.exclusive(prefix, &key, inner);
            self.belonging(prefix, &key, inner);
            if let (Some(Value::Table(_)), Some(inner)) = (self.given.get(&key), table_form(inner)) {
                self.keys(&key, inner);
            }
        }
    }

    /// Takes out one of two keys that exclude each other: an override beats the other key of the file.
    fn exclusive(&mut self, prefix: &str, key: &str, schema: &Schema) {
        for other in schema[EXCLUDES].as_array().into_iter().flatten().filter_map(Schema::as_str) {
            let other = join(prefix, other);
            if self.given.get(&other).is_none() {
                continue;
            }
            if self.supersedes(key, &other) {
                self.given.remove(&other);
                continue;
            }
            if !self.supersedes(&other, key) {
                self.problem(key, format!("excludes {other}, which is given too"), "leave one of them out");
            }
            self.given.remove(key);
        }
    }

    /// Takes out a key that has a meaning for some values of another key only; an override of the other silences it. A
    /// default says nothing, and may be anywhere.
    fn belonging(&mut self, prefix: &str, key: &str, schema: &Schema) {
        for owner in Owner::all(prefix, schema) {
            let chosen = self.effective(&owner.key).is_some_and(|chosen| owner.values.contains(&chosen.as_str()));
            if chosen || self.given.get(key).is_none_or(|given| is_default(given, schema)) {
                continue;
            }
            if !self.supersedes(&owner.key, key) {
                let values: Vec<String> = owner.values.iter().map(|value| format!("\"{value}\"")).collect();
                let condition = format!("{} = {}", owner.key, values.join(" or "));
                let hint = format!("leave it out, or set {condition}");
                self.conflict(key, &[&owner.key], format!("belongs to {condition} only"), hint);
            }
            self.given.remove(key);
        }
    }

    fn any_broken(&self, key: &str, others: &[&str]) -> bool {
        self.findings.is_broken(key) || others.iter().any(|other| self.findings.is_broken(other))
    }
}

/// A choice that a key belongs to.
pub(super) struct Owner<'s> {
    /// The key of the choice.
    pub key: String,
    /// The values that the key has a meaning for.
    pub values: Vec<&'s str>,
}

impl<'s> Owner<'s> {
    /// The choices that a key of the table at `prefix` belongs to.
    pub(super) fn all(prefix: &str, schema: &'s Schema) -> impl Iterator<Item = Self> {
        let noted = schema.get(ONLY).and_then(Schema::as_array).into_iter().flatten();
        noted.filter_map(move |only| {
            let key = only["key"].as_str()?;
            let key = if key.contains('.') { key.to_owned() } else { join(prefix, key) };
            Some(Self { key, values: only["values"].as_array()?.iter().filter_map(Schema::as_str).collect() })
        })
    }
}

/// Whether a value is the default that the schema names.
pub(super) fn is_default(value: &Value, schema: &Schema) -> bool {
    schema.get("default").and_then(|default| Value::try_from(default).ok()).is_some_and(|default| default == *value)
}
