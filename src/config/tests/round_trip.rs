//! Resolved settings, written and loaded, are what they were. The files are drawn from the schema, so a new key is in them.

use super::*;
use crate::rng::{Purpose, Stream};
use proptest::prelude::*;
use serde_json::Value as Schema;
use toml::{Table, Value};

/// Texts for any key; a key that takes only some of them drops the others.
const TEXTS: [&str; 7] = ["name", "ü \"x\"", "/a'b", "cuda:3", "2/5", "timm/vit@abc", "a {} of 'b'"];

fn one_of<'a, T>(list: &'a [T], rng: &mut Stream) -> &'a T {
    &list[rng.below(list.len() as u64) as usize]
}

/// A value in one of the forms that a key may have.
fn any_value(schema: &Schema, rng: &mut Stream) -> Value {
    let forms: Vec<&Schema> = schema::alternatives(schema).collect();
    let form = *one_of(&forms, rng);
    if let Some(choices) = schema::choices(form) {
        return (*one_of(&choices, rng)).into();
    }
    let limit = |keywords: [&str; 2], other: f64| {
        keywords.iter().find_map(|keyword| schema::limit(form, keyword)).unwrap_or(other)
    };
    let (low, high) = (limit(["minimum", "exclusiveMinimum"], 0.0), limit(["maximum", "exclusiveMaximum"], 1e3));
    match schema::kind(form) {
        "boolean" => rng.chance(0.5).into(),
        "integer" => (rng.range(low, high) as i64).into(),
        "number" => rng.range(low, high).into(),
        "array" => {
            let (least, most) = (limit(["minItems"; 2], 0.0), limit(["maxItems"; 2], 4.0).min(4.0));
            let count = least as u64 + rng.below((most - least) as u64 + 1);
            let mut items: Vec<Value> = (0..count).map(|_| any_value(&form["items"], rng)).collect();
            // The ends of a range, for one.
            items.sort_by(|a, b| a.as_float().partial_cmp(&b.as_float()).unwrap());
            items.into()
        }
        "object" => any_table(form, rng).into(),
        _ => (*one_of(&TEXTS, rng)).into(),
    }
}

/// A table with some of its keys.
fn any_table(schema: &Schema, rng: &mut Stream) -> Table {
    let mut table = Table::new();
    for (name, inner) in layers::properties(schema) {
        if rng.chance(0.5) {
            table.insert(name.clone(), any_value(inner, rng));
        }
    }
    if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
        let name = (*one_of(&TEXTS, rng)).to_owned();
        table.insert(name, any_value(inner, rng));
    }
    table
}

/// The settings of a drawn file, without the keys that do not go with the others.
fn any_settings(rng: &mut Stream) -> Settings {
    let mut file = Document::of(any_table(schema::schema(), rng));
    loop {
        let text = toml::to_string(&file.root).unwrap();
        let problems = match load_text(&text, &[]) {
            Ok(settings) => return settings,
            Err(Error::Config(error)) => error.problems,
            Err(other) => panic!("{other}\n{text}"),
        };
        for problem in problems {
            if problem.key == "data.root" && file.get("data.root").is_none() {
                file.insert("data.root", "/data".into());
            } else if file.remove(&problem.key).is_none() {
                // It is missing beside others.
                let section = problem.key.split('.').next().unwrap();
                assert!(file.remove(section).is_some(), "{problem}\n{text}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn written_settings_load_as_they_were(seed: u64) {
        let settings = any_settings(&mut Stream::new(seed, Purpose::Split, &[]));
        let text = settings.to_toml().unwrap();
        let loaded = load_text(&text, &[]);
        prop_assert!(loaded.is_ok(), "{}\n{text}", loaded.unwrap_err());
        prop_assert_eq!(loaded.unwrap(), settings);
    }
}
