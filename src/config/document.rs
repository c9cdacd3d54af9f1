//! The configuration as given: the file's values with the overrides laid over them, and where each came from.

use crate::error::{Place, Problem};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// Values and their places.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// The merged values.
    pub root: Table,
    /// The place of each key and table, by dotted key.
    places: BTreeMap<String, Place>,
}

/// One override of the configuration file.
#[derive(Debug)]
pub(super) struct Override {
    /// As given, for messages.
    pub text: String,
    /// The names between the dots.
    pub path: Vec<String>,
    /// The value after `=`.
    pub value: Value,
}

impl Document {
    /// Values without places.
    pub(super) fn of(root: Table) -> Self {
        Self { root, ..Self::default() }
    }

    /// Reads TOML text; the problem of a text that is not TOML names its line.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let parsed = DeTable::parse(text).map_err(|error| Problem {
            place: error.span().map_or(Place::Absent, |span| Place::Line(line(text, span.start))),
            key: String::new(),
            message: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
            hint: None,
        })?;
        let mut document = Self::default();
        document.root = document.table(text, "", parsed.get_ref());
        Ok(document)
    }

    /// Lays one `--set` over what is there: a value replaces a value, tables on the way are created.
    pub(super) fn set(&mut self, over: Override) -> Result<(), Problem> {
        let place = Place::Set(over.text);
        let Some((last, tables)) = over.path.split_last() else { return Ok(()) };
        let mut table = &mut self.root;
        let mut key = String::new();
        for name in tables {
            key = join(&key, name);
            self.places.entry(key.clone()).or_insert_with(|| place.clone());
            let entry = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else {
                let message =
                    format!("is {}, not a table, so {} has no place in it", shown(entry), over.path.join("."));
                let hint = format!("override the whole of it with --set {key}=…");
                return Err(Problem { place, key, message, hint: Some(hint) });
            };
            table = inner;
        }
        key = join(&key, last);
        let is_below = |known: &str| known.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.'));
        self.places.retain(|known, _| !is_below(known));
        self.places.insert(key, place);
        table.insert(last.clone(), over.value);
        Ok(())
    }

    /// The value of a dotted key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let mut names = key.split('.');
        let first = self.root.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    /// Sets the value of a dotted key, which keeps its place.
    pub(super) fn insert(&mut self, key: &str, value: Value) {
        if let Some((table, name)) = self.around(key) {
            table.insert(name.to_owned(), value);
        }
    }

    /// Takes the value of a dotted key out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Value> {
        self.around(key).and_then(|(table, name)| table.remove(name))
    }

    /// The table around a dotted key, made where there is none, and the key's own name; none when a plain value stands
    /// in the way.
    fn around<'k>(&mut self, key: &'k str) -> Option<(&mut Table, &'k str)> {
        let (tables, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.root;
        for name in tables.split('.').filter(|name| !name.is_empty()) {
            table = table.entry(name).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
        }
        Some((table, name))
    }

    /// Where `key` is, or else the nearest table around it.
    pub(super) fn place(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return place.clone();
            }
            match key.rfind('.') {
                Some(dot) => key = &key[..dot],
                None => return Place::Absent,
            }
        }
    }

    /// Whether `key` was given by an override.
    pub(super) fn is_overridden(&self, key: &str) -> bool {
        matches!(self.place(key), Place::Set(_))
    }

    /// Copies a parsed table, noting the line of each key below `prefix`.
    fn table(&mut self, text: &str, prefix: &str, parsed: &DeTable<'_>) -> Table {
        let mut table = Table::new();
        for (name, value) in parsed {
            let key = join(prefix, name.get_ref());
            self.places.insert(key.clone(), Place::Line(line(text, name.span().start)));
            let value = match value.get_ref() {
                DeValue::Table(inner) => Value::Table(self.table(text, &key, inner)),
                other => scalar_or_list(other),
            };
            table.insert(name.get_ref().to_string(), value);
        }
        table
    }
}

/// Copies a parsed value without its places.
pub(super) fn scalar_or_list(parsed: &DeValue<'_>) -> Value {
    match parsed {
        DeValue::String(text) => Value::String(text.to_string()),
        // Numbers beyond the range of their type become the nearest float: the check refuses them with the key.
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => i64::try_from(number).map_or(Value::Float(number as f64), Value::Integer),
            Err(_) => Value::Float(f64::INFINITY),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(*value),
        DeValue::Array(list) => Value::Array(list.iter().map(|item| scalar_or_list(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table.iter().map(|(name, value)| (name.get_ref().to_string(), scalar_or_list(value.get_ref()))).collect(),
        ),
    }
}

/// The dotted key of `name` in the table `prefix`; names that are not bare keys are quoted.
pub(super) fn join(prefix: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if prefix.is_empty() { name } else { format!("{prefix}.{name}") }
}

/// A value as it is shown in a message: TOML on one line, cut when long.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string().replace('\n', " "),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The line of a byte offset, from 1.
pub(super) fn line(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn over(text: &str) -> Override {
        Override::parse(text, &json!({})).unwrap()
    }

    #[test]
    fn keys_know_their_lines() {
        let document = Document::parse("# comment\n[run]\nname = \"a\"\n\n[augment.color]\np = 0.5\n").unwrap();
        let line = |key| document.place(key);
        assert_eq!(line("run"), Place::Line(2));
        assert_eq!(line("run.name"), Place::Line(3));
        assert_eq!(line("run.seed"), Place::Line(2), "an absent key is placed at its section");
        assert_eq!(line("augment.color.p"), Place::Line(6));
        assert_eq!(line("model.backbone"), Place::Absent);
    }

    #[test]
    fn crlf_and_tabs_do_not_shift_lines() {
        let document = Document::parse("[run]\r\n\tseed = 1\r\n\r\n[data]\r\nroot = 'x'\r\n").unwrap();
        assert_eq!(document.place("data.root"), Place::Line(5));
    }

    #[test]
    fn overrides_replace_and_create() {
        let mut document = Document::parse("[train]\nlr = 1.0\n[augment]\ncolor = { p = 0.5, hue = 0.1 }\n").unwrap();
        for text in ["train.lr=2.0", "early_stop.patience=3", "augment.color.p=0.25"] {
            document.set(over(text)).unwrap();
        }
        assert_eq!(document.root["train"]["lr"], Value::Float(2.0));
        assert_eq!(document.root["early_stop"]["patience"], Value::Integer(3));
        assert_eq!(document.root["augment"]["color"]["p"], Value::Float(0.25));
        assert_eq!(document.root["augment"]["color"]["hue"], Value::Float(0.1));
        assert!(document.is_overridden("train.lr") && !document.is_overridden("augment.color.hue"));
        document.set(over("augment.color={ hue = 0.2 }")).unwrap();
        assert!(document.is_overridden("augment.color.hue"), "places of the replaced table are forgotten");
    }

    #[test]
    fn an_override_inside_a_plain_value_is_a_problem() {
        let mut document = Document::parse("[augment]\ncolor = 0.4\n").unwrap();
        let problem = document.set(over("augment.color.p=0.1")).unwrap_err();
        assert_eq!((problem.key.as_str(), problem.place), ("augment.color", Place::Set("augment.color.p=0.1".into())));
        assert!(problem.message.contains("0.4"), "{}", problem.message);
    }

    #[test]
    fn numbers_beyond_their_range_do_not_panic() {
        let text = "a = 99999999999999999999\nb = 0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff_ff\nc = 1e999\n";
        let document = Document::parse(text).unwrap();
        assert!(document.root["a"].as_float().is_some_and(f64::is_finite));
        assert_eq!(document.root["b"].as_float(), Some(f64::INFINITY));
        assert_eq!(document.root["c"].as_float(), Some(f64::INFINITY));
    }

    #[test]
    fn text_that_is_not_toml_names_its_line() {
        let problem = Document::parse("[run]\nseed = 1\nname = \n").unwrap_err();
        assert_eq!(problem.place, Place::Line(3));
    }
}
