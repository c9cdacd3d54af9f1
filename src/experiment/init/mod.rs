//! A first configuration for images that nothing is known of yet: they are looked at, and what was decided is written
//! down with its reason.

mod choose;
mod groups;
mod options;
mod survey;
mod text;

use crate::config::{self, DataSource};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::report::Console;
use crate::system::shown::Shown;
use choose::ChosenBackbone;
pub use options::InitOptions;
use options::shown;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use survey::Survey;

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct Initialised {
    /// The configuration.
    pub config: PathBuf,
    /// The list of images beside it, where the folders alone would not do.
    pub manifest: Option<PathBuf>,
    /// Images of each class.
    pub classes: BTreeMap<String, usize>,
    /// Images of each split, some of them drawn.
    pub splits: BTreeMap<&'static str, usize>,
    /// Groups that the names suggest, or that a column holds.
    pub groups: Option<usize>,
    /// The class of good parts.
    pub good: Option<String>,
    /// `model.backbone`
    pub backbone: String,
    /// `model.image_size`; none = the backbone's own.
    pub image_size: Option<usize>,
    /// What to type next.
    pub next: String,
}

/// Looks at a folder of class folders, a CSV file or a tree as `MVTec` arranges it, and writes a configuration that
/// `finetune` takes as it is. Nothing is overwritten.
///
/// # Errors
/// A usage error when a file to be written exists; data errors, as a training would report them.
pub fn init(data: &Path, options: &InitOptions, console: &Console) -> Result<Initialised> {
    let current = std::env::current_dir().map_err(Error::io("find", "."))?;
    let data = config::normal(&current.join(data));
    let out = config::normal(&current.join(options.out.clone().unwrap_or_else(|| default_file(&data))));
    let manifest = out.with_extension("csv");
    if manifest == out {
        let message = format!("--out {} is the name of a table, and a configuration is written", out.shown());
        return Err(Error::usage_hint(message, "give it the ending .toml"));
    }
    refuse_existing(&out)?;
    let survey = Survey::of(&data, options, console)?;
    let writes_manifest = survey.rows().is_some();
    if writes_manifest {
        refuse_existing(&manifest)?;
    }
    let choice = ChosenBackbone::make(&survey, options, console)?;
    if let Some(rows) = survey.rows() {
        write_new(&manifest, &rows?)?;
    }
    write_new(&out, text::config(&survey, &choice, (&data, &out, &manifest)).as_bytes())?;
    // As a training will read it: what it would refuse of settings and images is refused now, and nothing is left behind.
    let read = config::load(Some(&out), &[]).and_then(|settings| Ok((Dataset::open(&settings.data)?, settings)));
    let (dataset, settings) = read.inspect_err(|_| {
        let written = [Some(&out), writes_manifest.then_some(&manifest)];
        written.into_iter().flatten().for_each(|file| drop(fs::remove_file(file)));
    })?;
    let count = |split| (Split::name(split), dataset.indices(split).len());
    Ok(Initialised {
        manifest: matches!(settings.data.source, DataSource::Manifest(_))
            .then_some(manifest)
            .filter(|_| writes_manifest),
        classes: survey.counts(),
        splits: Split::ALL.into_iter().map(count).collect(),
        groups: survey.group_count(),
        good: survey.good.clone(),
        backbone: choice.backbone,
        image_size: choice.image_size,
        next: format!("vitadapt finetune --config {}", shown(&out)),
        config: out,
    })
}

/// The name of the data with another ending, in the current folder.
fn default_file(data: &Path) -> PathBuf {
    let stem = data.file_stem().map_or_else(|| "vitadapt".into(), std::ffi::OsStr::to_os_string);
    Path::new(&stem).with_extension("toml")
}

fn refuse_existing(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() { Err(exists(path)) } else { Ok(()) }
}

fn exists(path: &Path) -> Error {
    let message = format!("{} exists, and nothing is overwritten", path.shown());
    Error::usage_hint(message, "name another file with --out, or move that one")
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => Error::io("create", path)(error),
    })?;
    file.write_all(bytes).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests;
