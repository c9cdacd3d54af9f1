//! Configuration: one TOML file and `--set` overrides become [`Settings`].
//!
//! The structs of the settings are the only list of keys: their schema says which there are, of which type and range, and
//! with which default. The file and the overrides are read with the place of each key (`document`), checked against the
//! schema (`check`) and against each other (`rules`, `settle`); recipes, presets and defaults are layers below them
//! (`choices`, `layers`), and the one document that results is deserialised into [`Settings`]. Settings that contradict
//! each other are found last (`sense`). All problems are reported at once. Writing is serialising (`write`).

mod aliases;
mod check;
mod choices;
mod column_names;
mod document;
mod feature_settings;
mod fold;
mod head_settings;
mod inspection_settings;
mod layers;
mod loss_settings;
mod metric_choice;
mod overrides;
mod paths;
mod prompt_settings;
mod prompt_tuning;
mod read;
mod report_settings;
mod rules;
mod schema;
mod sense;
mod settings;
mod settle;
mod strategy_settings;
mod suggest;
mod tile_settings;
mod train_settings;
mod without_file;
mod write;

pub use column_names::ColumnNames;
pub use feature_settings::*;
pub use fold::Fold;
pub use head_settings::*;
pub use inspection_settings::*;
pub use loss_settings::*;
pub use metric_choice::*;
pub use paths::normal;
pub use prompt_settings::{PromptPreset, PromptSettings, PromptTemplates};
pub use prompt_tuning::*;
pub use report_settings::*;
pub use schema::json_schema;
pub use settings::*;
pub use strategy_settings::*;
pub(crate) use suggest::{closest, for_unknown_class};
pub use tile_settings::*;
pub use train_settings::*;
pub use without_file::with_backbone;

pub use crate::augment::{AugmentPreset, AugmentSettings};

use crate::error::{ConfigError, Error, Place, Problem, Result};
use crate::system::shown::Shown;
use document::{Document, Override};
use paths::Bases;
use rules::RuleCheck;
use serde::Deserialize;
use settings::UNFREEZE;
use std::path::Path;
use toml::Value;

/// The choices among the settings that bring other keys along, as overrides: a strategy, a loss, a preset.
pub fn choices(settings: &Settings) -> Vec<String> {
    let values = serde_json::json!(settings);
    let set = |key: &str| {
        let value = key.split('.').try_fold(&values, |value, name| value.get(name))?;
        Some(format!("{key}={}", value.as_str()?))
    };
    choices::keys().into_iter().filter_map(set).collect()
}

/// Reads the configuration `file`, lays the overrides `sets` (`section.key=value`) over it and resolves everything.
///
/// Relative paths in the file are relative to the file; those in overrides, and the default of `run.out`, to the
/// current folder. Of two keys that exclude each other, an override silences the one in the file.
///
/// # Errors
/// A usage error for a file that cannot be read or a malformed override; a [`ConfigError`] with all problems of the
/// values, in the order of their lines.
pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Settings> {
    let schema = schema::schema();
    let overrides = sets.iter().map(|text| Override::parse(text, schema)).collect::<Result<Vec<_>>>()?;
    let bases = Bases::of(file)?;
    let title = || file.map_or_else(|| "command line".into(), Shown::shown);
    let refuse = |problems| Error::Config(ConfigError { file: title(), problems });
    let text = file.map_or_else(|| Ok(String::new()), read::text)?;
    let mut document = Document::parse(&text).map_err(|problem| refuse(vec![problem]))?;
    let misplaced: Vec<Problem> = overrides.into_iter().filter_map(|over| document.set(over).err()).collect();

    let mut findings = check::check(&mut document, schema);
    findings.problems.extend(misplaced);
    let mut rules = RuleCheck { given: &mut document, schema, findings: &mut findings, bases: &bases };
    rules.settle();
    let merged = layers::merge(rules.given, schema, &default_name(file), &bases.current);
    let settings = merged.and_then(|mut root| {
        // The one key that the settings hold beside its section.
        if let Some(Value::Table(strategy)) = root.get_mut("strategy")
            && let Some(unfreeze) = strategy.remove("unfreeze")
        {
            root.insert(UNFREEZE.into(), unfreeze);
        }
        Settings::deserialize(root).map_err(|error| disagreement(&error))
    });
    match settings {
        Ok(settings) => {
            rules.sense(&settings);
            if findings.problems.is_empty() {
                return Ok(settings);
            }
        }
        // What is missing was reported already.
        Err(problem) if findings.problems.is_empty() => findings.problems.push(problem),
        Err(_) => {}
    }
    findings.problems.sort_by(|a, b| a.place.cmp(&b.place));
    Err(refuse(findings.problems))
}

/// The schema is generated from the structs that are read, so this is a disagreement of the two libraries: still a
/// report and no panic.
fn disagreement(error: &toml::de::Error) -> Problem {
    let hint = Some("this is a bug of vitadapt".into());
    Problem { place: Place::Absent, key: String::new(), message: error.to_string(), hint }
}

/// `run.name` when it is not given: the file's stem where it can be one.
fn default_name(file: Option<&Path>) -> String {
    file.and_then(Path::file_stem)
        .and_then(|stem| stem.to_str())
        .filter(|stem| sense::is_folder_name(stem))
        .unwrap_or("run")
        .to_owned()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
