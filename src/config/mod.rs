//! Configuration: one TOML file and `--set` overrides become [`Settings`].
//!
//! Text is parsed with the place of each key (`document`), held against the schema of the raw structs (`check`,
//! `raw`), read into them, and resolved (`resolve`): defaults, absolute paths, keys that depend on each other. Every
//! problem found on the way is reported at once.

mod augment_settings;
mod check;
mod document;
mod feature_settings;
mod fold;
mod head_settings;
mod inspection_settings;
mod loss_settings;
mod overrides;
mod paths;
mod prompt_settings;
mod prompt_tuning;
mod raw;
mod raw_augment;
mod raw_inspection;
mod raw_strategy;
mod read;
mod report_settings;
mod resolve;
mod schema;
mod settings;
mod strategy_settings;
mod suggest;
mod write;
mod write_inspection;

pub use augment_settings::*;
pub use feature_settings::*;
pub use fold::Fold;
pub use head_settings::*;
pub use inspection_settings::*;
pub use loss_settings::*;
pub use prompt_settings::*;
pub use prompt_tuning::*;
pub use report_settings::*;
pub use schema::json_schema;
pub use settings::*;
pub use strategy_settings::*;
pub(crate) use suggest::{closest, for_unknown_class};

use crate::error::{ConfigError, Error, Place, Problem, Result};
use check::Findings;
use document::Document;
use overrides::Override;
use paths::Bases;
use raw::Raw;
use resolve::Resolver;
use serde::Deserialize;
use std::path::Path;

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
    let overrides = sets.iter().map(|text| Override::parse(text, &schema)).collect::<Result<Vec<_>>>()?;
    let bases = Bases::of(file)?;
    let refuse = |problems| Error::Config(ConfigError { file: title(file), problems });
    let text = file.map_or_else(|| Ok(String::new()), read::text)?;
    let mut document = Document::parse(&text).map_err(|problem| refuse(vec![problem]))?;
    let misplaced: Vec<Problem> = overrides.into_iter().filter_map(|over| document.set(over).err()).collect();

    let mut findings = check::check(&mut document, &schema);
    findings.problems.extend(misplaced);
    let raw = raw(&mut document, &mut findings);
    let name = default_name(file);
    let settings = Resolver { document: &document, findings: &mut findings, bases: &bases, name }.resolve(raw);
    if findings.problems.is_empty() {
        return Ok(settings);
    }
    findings.problems.sort_by(|a, b| a.place.cmp(&b.place));
    Err(refuse(findings.problems))
}

/// The raw structs, from values that the check has passed.
fn raw(document: &mut Document, findings: &mut Findings) -> Raw {
    Raw::deserialize(std::mem::take(&mut document.root)).unwrap_or_else(|error| {
        // The schema is generated from these structs, so this is a disagreement of the two libraries: still a
        // report and no panic.
        findings.add(Place::Absent, "", error.to_string(), "this is a bug of vitadapt");
        Raw::default()
    })
}

/// What the problems are headed with.
fn title(file: Option<&Path>) -> String {
    file.map_or_else(|| "--set".into(), |file| file.display().to_string())
}

/// `run.name` when it is not given: the file's stem where it can be one.
fn default_name(file: Option<&Path>) -> String {
    file.and_then(Path::file_stem)
        .and_then(|stem| stem.to_str())
        .filter(|stem| resolve::is_folder_name(stem))
        .unwrap_or("run")
        .to_owned()
}

#[cfg(test)]
mod tests;
