//! "Did you mean …" for names that do not exist.

use super::aliases;
use super::document::join;
use serde_json::Value as Schema;
use toml::Value;

/// Names less alike than this (Jaro-Winkler, 0 to 1) are not misspellings of each other.
const ALIKE: f64 = 0.8;
/// The same for keys of other sections, of which there are many.
const VERY_ALIKE: f64 = 0.9;

/// The candidate most like `name`, when one is alike enough to be meant.
pub(crate) fn closest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    alike(name, ALIKE, candidates)
}

fn alike<'c>(name: &str, least: f64, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let name = name.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= least)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// What may have been meant by a class that the data does not have, or else all that it has.
pub(crate) fn for_unknown_class(name: &str, classes: &[String]) -> String {
    match closest(name, classes.iter().map(String::as_str)) {
        Some(close) => format!("did you mean {close:?}?"),
        None => format!("the classes are {}", classes.join(", ")),
    }
}

/// What may have been meant by the unknown key `name` of the table `section`: a key of that meaning, the same key in
/// another section, a name spelt alike, what is in it, a name spelt alike elsewhere, or else all the keys there are.
pub(super) fn for_unknown(section: &str, name: &str, value: &Value, table: &Schema, root: &Schema) -> String {
    if let Some(key) = meant(section, name, root) {
        return format!("did you mean {key}?");
    }
    if let Some(close) = closest(name, names(table)) {
        return format!("did you mean {close}?");
    }
    let inside = value.as_table().into_iter().flatten();
    let keys: Vec<String> = inside
        .filter_map(|(inner, _)| Some(format!("{} for {}", meant(name, inner, root)?, join(name, inner))))
        .collect();
    if !keys.is_empty() {
        return format!("did you mean {}?", keys.join(", "));
    }
    let elsewhere = names(root).flat_map(|section| names(&root["properties"][section]));
    match alike(name, VERY_ALIKE, elsewhere).and_then(|key| meant(section, key, root)) {
        Some(key) => format!("did you mean {key}?"),
        None => format!("known here: {}", names(table).collect::<Vec<_>>().join(", ")),
    }
}

/// A key that means the same, or that has this name in another section.
fn meant(section: &str, name: &str, root: &Schema) -> Option<String> {
    let alias = aliases::meant(section, name).map(str::to_owned);
    alias.or_else(|| section_with(name, root).map(|section| join(section, name)))
}

fn names(table: &Schema) -> impl Iterator<Item = &str> {
    table.get("properties").and_then(Schema::as_object).into_iter().flatten().map(|(name, _)| name.as_str())
}

fn section_with<'r>(name: &str, root: &'r Schema) -> Option<&'r str> {
    let has = |section: &&str| root["properties"][*section]["properties"].get(name).is_some();
    names(root).find(has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::schema;

    #[test]
    fn misspellings_find_their_word() {
        let kinds = ["frozen", "partial", "full"];
        for (name, expected) in [("ful", "full"), ("Frozen", "frozen"), ("patrial", "partial")] {
            assert_eq!(closest(name, kinds), Some(expected), "{name}");
        }
        assert_eq!(closest("lora", kinds), None);
    }

    #[test]
    fn unknown_keys_are_looked_for_everywhere() {
        let root = schema();
        let hint = |section: &str, name: &str| {
            let table = if section.is_empty() { root } else { &root["properties"][section] };
            for_unknown(section, name, &Value::Integer(1), table, root)
        };
        assert_eq!(hint("train", "batchsize"), "did you mean batch_size?");
        assert_eq!(hint("train", "bananas").split(':').next(), Some("known here"));
        assert_eq!(hint("train", "patience"), "did you mean early_stop.patience?");
        assert_eq!(hint("train", "precison"), "did you mean run.precision?");
        assert_eq!(hint("", "trian"), "did you mean train?");
        assert_eq!(hint("", "lr"), "did you mean train.lr?");
        assert_eq!(hint("", "epochs"), "did you mean train.epochs?");
    }

    #[test]
    fn what_means_the_same_comes_before_what_is_called_the_same() {
        let root = schema();
        let train = &root["properties"]["train"];
        let learning_rate = for_unknown("train", "learning-rate", &Value::Float(0.1), train, root);
        assert_eq!(learning_rate, "did you mean train.lr?", "tsne has a learning_rate");
        let misspelt = for_unknown("train", "leraning_rate", &Value::Float(0.1), train, root);
        assert_eq!(misspelt, "did you mean train.lr?");
        let section: toml::Table = "lr = 1\nmomentum = 0.9\nweight_decay = 0".parse().unwrap();
        let of_section = for_unknown("", "optimizer", &section.into(), root, root);
        assert_eq!(
            of_section,
            "did you mean train.lr for optimizer.lr, train.weight_decay for optimizer.weight_decay?"
        );
        let section: toml::Table = "cutmix = true".parse().unwrap();
        let mixups = for_unknown("", "mixups", &section.into(), root, root);
        assert_eq!(mixups, "did you mean train.cutmix for mixups.cutmix?", "train has a mixup");
    }
}
