//! `--set section.key=value`.

use super::document::{Override, scalar_or_list};
use super::schema;
use crate::error::{Error, Result};
use toml::Value;
use toml::de::DeValue;

impl Override {
    /// Takes `section.key=value` apart. The value is TOML where it can be, else the text itself, so that shells
    /// need no second layer of quotes; keys that hold only text (`run.name=7`) take it as it is.
    pub(super) fn parse(text: &str, schema: &serde_json::Value) -> Result<Self> {
        let malformed = |what: &str| {
            Error::usage_hint(format!("--set {text}: {what}"), "write section.key=value, as in --set train.lr=1e-4")
        };
        let (key, value) = text.split_once('=').ok_or_else(|| malformed("there is no ="))?;
        let path: Vec<String> = key.split('.').map(|name| name.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(malformed("the key is incomplete"));
        }
        let value = value.trim();
        let parsed = DeValue::parse(value).ok().map(|parsed| scalar_or_list(parsed.get_ref()));
        let wants_text =
            schema::at(schema, path.iter().map(String::as_str)).is_some_and(|schema| schema::kind(schema) == "string");
        let value = match parsed {
            Some(parsed) if !wants_text || parsed.is_str() => parsed,
            _ => Value::String(value.to_owned()),
        };
        Ok(Self { text: text.to_owned(), path, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::schema;

    fn value(text: &str) -> Value {
        Override::parse(text, schema()).unwrap().value
    }

    #[test]
    fn values_are_toml_or_bare_text() {
        let table = [
            ("train.lr=1e-4", Value::Float(1e-4)),
            ("train.epochs = 3", Value::Integer(3)),
            ("data.stratified=false", Value::Boolean(false)),
            ("augment.crop.scale=[0.5, 1.0]", Value::Array(vec![Value::Float(0.5), Value::Float(1.0)])),
            ("model.backbone=builtin:vit-mini", Value::String("builtin:vit-mini".into())),
            ("data.root=../a=b", Value::String("../a=b".into())),
            ("strategy.kind=full", Value::String("full".into())),
            ("strategy.kind=\"full\"", Value::String("full".into())),
            ("run.name=2024", Value::String("2024".into())),
            ("run.name=", Value::String(String::new())),
            ("train.lr=fast", Value::String("fast".into())),
        ];
        for (text, expected) in table {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn malformed_overrides_are_usage_errors() {
        for text in ["foo", "=1", "train.=1", ".lr=1", ""] {
            let error = Override::parse(text, schema()).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }) && error.hint().is_some(), "{text}");
        }
    }
}
