//! Settings written as a configuration file.

use super::document::{Document, join};
use super::layers::properties;
use super::rules::{Owner, is_default};
use super::schema::schema;
use super::settings::{Settings, UNFREEZE};
use crate::error::{Error, Result};
use toml::Table;

const HEADER: &str = "# The resolved configuration: every default is written out, every path is absolute.\n\n";

impl Settings {
    /// The settings as TOML with nothing left to defaults: loading it gives equal settings, from any folder.
    ///
    /// # Errors
    /// A usage error when a path is not valid UTF-8, which TOML demands.
    pub fn to_toml(&self) -> Result<String> {
        let failed =
            |error: toml::ser::Error| Error::usage(format!("the configuration cannot be written as TOML: {error}"));
        let mut document = Document::of(Table::try_from(self).map_err(failed)?);
        if let Some(unfreeze) = document.root.remove(UNFREEZE) {
            document.insert(UNFREEZE, unfreeze);
        }
        // With a fold there is no fraction to write.
        if self.data.fold.is_some() {
            document.remove("data.test");
        }
        drop_foreign(&mut document, schema());
        Ok(format!("{HEADER}{}", toml::to_string(&document.root).map_err(failed)?))
    }
}

/// Leaves out the keys of choices that were not made.
fn drop_foreign(document: &mut Document, schema: &serde_json::Value) {
    for (section, inner) in properties(schema) {
        for (name, inner) in properties(inner) {
            let key = join(section, name);
            let foreign = Owner::all(section, inner).any(|owner| {
                let chosen = document.get(&owner.key).and_then(toml::Value::as_str);
                chosen.is_none_or(|chosen| !owner.values.contains(&chosen))
            });
            if foreign && !document.get(&key).is_some_and(|value| is_default(value, inner)) {
                document.remove(&key);
            }
        }
    }
}
