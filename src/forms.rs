//! Forms in which values of the configuration may be written: how they are read, and what their schema says.
//!
//! The structs of `config` and `augment` are read by serde and described by schemars. What neither can say by itself is
//! noted in the schema under names that begin with `x-`, which the published schema leaves out.

use schemars::Schema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The number that `true` stands for; `false` is 0.
pub const ON: &str = "x-on";
/// The keys of a table that a number in its place sets; `true` is then the table with its defaults.
pub const NUMBER: &str = "x-number";
/// The keys that exclude this one.
pub const EXCLUDES: &str = "x-excludes";
/// The choices that this key belongs to: a list of a key and its values.
pub const ONLY: &str = "x-only";
/// A path, relative to the file or, in an override, to the current folder.
pub const PATH: &str = "x-path";
/// A list without repetitions.
pub const UNIQUE: &str = "x-unique";
/// What the numbers of a list are that is no range.
pub const NAMES: &str = "x-names";
/// Another word for a choice.
pub const ALIAS: &str = "x-alias";

/// A type that is read from text by its `FromStr` and written as its `Display`.
macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = <Self as std::str::FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
pub(crate) use as_text;

/// A choice that is shown as it is written in a configuration or a record.
macro_rules! shown_as_written {
    ($type:ty) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                serde::Serialize::serialize(self, f)
            }
        }
    };
}
pub(crate) use shown_as_written;

/// Whether a value is its type's default, which an absent key stands for.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `false`, and nothing else.
#[derive(Deserialize)]
#[serde(try_from = "bool")]
struct Off;

impl TryFrom<bool> for Off {
    type Error = &'static str;

    fn try_from(on: bool) -> Result<Self, Self::Error> {
        if on { Err("expected false or a value") } else { Ok(Self) }
    }
}

/// A value that may be turned off by `false`.
pub fn off_or<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    word_or::<Off, T, D>(deserializer)
}

/// A value, or the word that stands for none.
fn word_or<'de, W: Deserialize<'de>, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum WordOr<W, T> {
        Word(W),
        Value(T),
    }
    Ok(match WordOr::<W, T>::deserialize(d)? {
        WordOr::Word(_) => None,
        WordOr::Value(value) => Some(value),
    })
}

/// Writes what [`off_or`] reads.
#[allow(clippy::ref_option)] // as serde calls it
pub fn write_off_or<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_bool(false),
    }
}

/// A number above 0; `false` and 0 are none.
pub fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(off_or(deserializer)?.filter(|number| *number > 0.0))
}

/// A value, or the word `auto` for none.
pub fn auto_or<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Auto,
    }
    word_or::<Word, T, D>(deserializer)
}

/// Writes what [`auto_or`] reads.
#[allow(clippy::ref_option)] // as serde calls it
pub fn write_auto_or<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_str("auto"),
    }
}

/// The shortest decimal that reads as `value`: 0.485, where a plain conversion would give 0.48500001430511475.
pub fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// Writes numbers in the fewest digits that are theirs.
#[allow(clippy::ref_option)] // as serde calls it
pub fn write_short<S: Serializer>(numbers: &Option<[f32; 3]>, serializer: S) -> Result<S::Ok, S::Error> {
    numbers.map(|numbers| numbers.map(decimal)).serialize(serializer)
}

/// One value, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// The one to use.
    One(T),
    /// Those to choose from.
    Many(Vec<T>),
}

impl<T> From<OneOrMany<T>> for Vec<T> {
    fn from(values: OneOrMany<T>) -> Self {
        match values {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        }
    }
}

/// One value or several, in ascending order, each once.
pub fn ascending<'de, T: Deserialize<'de> + PartialOrd, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    let mut values: Vec<T> = OneOrMany::deserialize(d)?.into();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.dedup();
    Ok(values)
}

/// The schema of a value that may be one of several forms; what is said about the key itself stays outside.
pub fn wrap(schema: &mut Schema, forms: impl FnOnce(Value) -> Vec<Value>) {
    let object = schema.ensure_object();
    let about_key = |name: &String| name == "description" || name == "default" || name.starts_with("x-");
    let (about, form): (Map<_, _>, Map<_, _>) =
        std::mem::take(object).into_iter().partition(|(name, _)| about_key(name));
    *object = about;
    object.insert("anyOf".into(), forms(Value::Object(form)).into());
}

/// The schema of `true` and `false`.
pub fn on_or_off() -> Value {
    json!({ "type": "boolean", "description": "`false` = off, `true` = on with the defaults." })
}

/// On, off, or a value.
pub fn switch(schema: &mut Schema) {
    wrap(schema, |value| vec![on_or_off(), described(value, "On, with this.")]);
}

/// On, off, the words `auto` and `none` for these, or a value.
pub fn switch_or_auto(schema: &mut Schema) {
    let word = |word: &str, description: &str| json!({ "type": "string", "const": word, "description": description });
    let words = json!({ "oneOf": [word("auto", "On with the defaults."), word("none", "Off.")] });
    wrap(schema, |value| vec![on_or_off(), words, described(value, "On, with this.")]);
}

/// The word `auto`, or a value.
pub fn auto(schema: &mut Schema) {
    let word = json!({ "type": "string", "const": "auto", "description": "Found by the program." });
    wrap(schema, |value| vec![json!({ "oneOf": [word] }), described(value, "This.")]);
}

/// One item, or the list.
pub fn one_or_many(schema: &mut Schema) {
    wrap(schema, |list| {
        vec![described(list["items"].clone(), "The one to use."), described(list, "Those to choose from.")]
    });
}

/// One side, or height and width.
pub fn size(schema: &mut Schema) {
    wrap(schema, |side| {
        let sides = json!({
            "type": "array", "items": side, "minItems": 2, "maxItems": 2, NAMES: "[height, width]",
            "description": "Height and width.",
        });
        vec![described(side, "Both sides of a square."), sides]
    });
}

/// The same for each value of a map.
pub fn each_one_or_many(schema: &mut Schema) {
    if let Some(entry) = schema.ensure_object().get_mut("additionalProperties")
        && let Ok(mut inner) = Schema::try_from(entry.take())
    {
        one_or_many(&mut inner);
        *entry = inner.to_value();
    }
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

/// The keys of an enum's variants side by side, as written in a table that the enum is flattened into.
///
/// With a tag, its key lists the variants, is described by the enum's own documentation, and keys that only some
/// variants have belong to these. Without one, keys of different variants exclude each other.
pub fn side_by_side(schema: &mut Schema) {
    let object = schema.ensure_object();
    let variants = ["oneOf", "anyOf"].iter().find_map(|name| object.shift_remove(*name));
    let Some(Value::Array(variants)) = variants else { return };
    let tag = properties(&variants[0]).find(|(_, inner)| inner.get("const").is_some()).map(|(name, _)| name.clone());
    let merged = match &tag {
        Some(tag) => tagged(tag, std::mem::take(object), &variants),
        None => untagged(&variants),
    };
    *object = Map::from_iter([("type".into(), "object".into()), ("properties".into(), merged.into())]);
}

/// The keys of a table.
pub(crate) fn properties(variant: &Value) -> impl Iterator<Item = (&String, &Value)> {
    variant.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn tagged(tag: &str, about: Map<String, Value>, variants: &[Value]) -> Map<String, Value> {
    let mut choices = Vec::new();
    let mut merged: Map<String, Value> = Map::new();
    let mut owners: Map<String, Value> = Map::new();
    for variant in variants {
        let name = &variant["properties"][tag]["const"];
        choices.push(json!({ "type": "string", "const": name, "description": variant["description"] }));
        if let (Some(alias), Some(name)) = (variant.get(ALIAS), name.as_str()) {
            let description = format!("Another word for `{name}`.");
            choices.push(json!({ "type": "string", "const": alias, "description": description }));
        }
        for (key, inner) in properties(variant).filter(|(key, _)| *key != tag) {
            merged.entry(key).or_insert_with(|| inner.clone());
            if let Value::Array(owners) = owners.entry(key).or_insert_with(|| json!([])) {
                owners.push(name.clone());
            }
        }
    }
    for (key, inner) in &mut merged {
        if owners[key].as_array().is_some_and(|owners| owners.len() < variants.len()) {
            let mut only = vec![json!({ "key": tag, "values": owners[key] })];
            only.extend(inner[ONLY].as_array().into_iter().flatten().cloned());
            inner[ONLY] = only.into();
        }
    }
    let mut own = about;
    own.shift_remove("type");
    own.insert("oneOf".into(), choices.into());
    [(tag.to_owned(), own.into())].into_iter().chain(merged).collect()
}

fn untagged(variants: &[Value]) -> Map<String, Value> {
    let mut merged: Map<String, Value> = Map::new();
    for variant in variants {
        let before: Vec<String> = merged.keys().cloned().collect();
        for (key, inner) in properties(variant) {
            let mut inner = inner.clone();
            if let Some(description) = variant.get("description") {
                inner["description"] = description.clone();
            }
            if !before.is_empty() {
                inner[EXCLUDES] = json!(before);
            }
            merged.insert(key.clone(), inner);
        }
    }
    merged
}
