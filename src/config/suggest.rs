//! "Did you mean …" for names that do not exist.

use serde_json::Value as Schema;

/// Names less alike than this (Jaro-Winkler, 0 to 1) are no misspelling of each other.
const ALIKE: f64 = 0.8;

/// The candidate most like `name`, when one is alike enough to be meant.
pub(crate) fn closest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let name = name.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
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

/// What may have been meant by the unknown key `name` of `table`: the same key in another section, a name spelt
/// alike, or else all the keys there are.
pub(super) fn for_unknown(name: &str, table: &Schema, root: &Schema) -> String {
    if let Some(section) = section_with(name, root) {
        return format!("did you mean {section}.{name}?");
    }
    match closest(name, names(table)) {
        Some(close) => format!("did you mean {close}?"),
        None => format!("known here: {}", names(table).collect::<Vec<_>>().join(", ")),
    }
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
        let train = &root["properties"]["train"];
        assert_eq!(for_unknown("batchsize", train, &root), "did you mean batch_size?");
        assert_eq!(for_unknown("learning-rate", train, &root).split(':').next(), Some("known here"));
        assert_eq!(for_unknown("patience", train, &root), "did you mean early_stop.patience?");
        assert_eq!(for_unknown("trian", &root, &root), "did you mean train?");
        assert_eq!(for_unknown("lr", &root, &root), "did you mean train.lr?");
    }
}
