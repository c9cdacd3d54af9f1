//! From a model to files that are known to work: written under a temporary name, read back, compared, then renamed.

use super::{ExportModel, Format, Layout, cannot};
use crate::error::{Error, Result, WeightsError};
use crate::metrics::softmax;
use crate::system::files::{Staged, create_folder, sync_folder};
use crate::system::shown::Shown;
use candle_core::Tensor;
use std::fs;
use std::path::{Path, PathBuf};

/// Largest accepted difference of a logit, relative to the largest logit, and of a probability.
pub const TOLERANCE: f64 = 1e-4;

/// Images and the model's logits for them.
#[derive(Debug)]
pub struct Check {
    /// What the files are run on, one after another, on the host: standardised pixels (B, 3, S, S) of images, or those of the
    /// tiles of one.
    pub inputs: Vec<Tensor>,
    /// The model's own logits before the temperature, row-major (images, classes).
    pub logits: Vec<f32>,
}

/// What was published.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Largest absolute difference between the model's logits, divided by the temperature, and those of the files.
    pub max_abs_diff: f64,
    /// The same relative to the largest logit.
    pub max_rel_diff: f64,
    /// Largest absolute difference between the run's calibrated probabilities and the softmax of the files' logits.
    pub max_probability_diff: f64,
    /// What ran the files.
    pub checked_by: &'static str,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Refuses a target that something is already at.
///
/// # Errors
/// A usage error that names it.
pub fn check_target(format: &Format, out: &Path) -> Result<()> {
    if out.file_name().is_none() {
        let message = format!("--out {} does not name a file", out.shown());
        return Err(Error::usage_hint(message, "give a path that ends in a name"));
    }
    if let Layout::File(extension) = format.layout
        && out.extension().is_none_or(|found| found != extension)
    {
        let message = format!("--out {} is not a .{extension} file", out.shown());
        return Err(Error::usage_hint(message, format!("end it in .{extension}")));
    }
    let taken = match format.layout {
        Layout::File(_) => [out.to_path_buf(), sidecar(out)].into_iter().find(|path| path.symlink_metadata().is_ok()),
        Layout::Folder => (out.symlink_metadata().is_ok() && !is_empty_folder(out)).then(|| out.to_path_buf()),
    };
    match taken {
        None => Ok(()),
        Some(path) => Err(Error::usage_hint(
            format!("{} exists and is not overwritten", path.shown()),
            "choose another --out, or remove it first",
        )),
    }
}

/// Writes `model` in `format` at `out`, provided that what was written gives the model's logits.
///
/// # Errors
/// A usage error when the target is taken or the format cannot express the model, a weights error when the logits
/// differ; nothing is left behind then.
pub fn export(format: &Format, model: &ExportModel, check: &Check, out: &Path) -> Result<Exported> {
    check_target(format, out)?;
    let obstacles = (format.obstacles)(model);
    if !obstacles.is_empty() {
        return Err(cannot(format, model, &obstacles));
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_folder(parent)?;
    let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let staged = Staged::beside(out)?;
    let staging = staged.path();
    create_folder(staging)?;
    let notes = (format.write)(&model.with_temperature_in_head()?, staging, &name)?;
    let differences = compare(format, model, check, (staging, &name))?;
    if !differences.agree {
        return Err(differences.refusal(out, &notes));
    }
    sync_folder(staging)?;
    let (files, bytes) = publish(format.layout, staging, out)?;
    sync_folder(parent)?;
    Ok(Exported {
        files,
        bytes,
        max_abs_diff: differences.absolute,
        max_rel_diff: differences.relative,
        max_probability_diff: differences.probability,
        checked_by: format.checked_by,
        notes,
    })
}

/// The JSON file beside an exported file.
pub(super) fn sidecar(file: &Path) -> PathBuf {
    file.with_extension("json")
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The largest differences.
struct Differences {
    /// Whether the files give the model's answers.
    agree: bool,
    /// The largest difference of a logit.
    absolute: f64,
    /// The same relative to the largest logit.
    relative: f64,
    /// The largest difference of a probability.
    probability: f64,
}

impl Differences {
    /// The failure of an export to `out`, with what was known of it before.
    fn refusal(self, out: &Path, notes: &[String]) -> Error {
        let Self { absolute, relative, probability, .. } = self;
        let known: String = notes.iter().map(|note| format!("; {note}")).collect();
        WeightsError::Invalid {
            path: out.to_path_buf(),
            reason: format!(
                "the files written give other logits: the largest difference is {absolute:.3e}, {relative:.1e} of the \
                 largest logit, and {probability:.1e} of a probability, where {TOLERANCE:.0e} is allowed{known}"
            ),
            hint: Some("nothing was kept; another --format may express this model exactly".into()),
        }
        .into()
    }
}

/// Runs the files on the images of the check.
fn compare(format: &Format, model: &ExportModel, check: &Check, (folder, name): (&Path, &str)) -> Result<Differences> {
    let run = |pixels: &Tensor| -> Result<Vec<f32>> {
        Ok((format.logits)(folder, name, pixels)?.flatten_all()?.to_vec1::<f32>()?)
    };
    let again = check.inputs.iter().map(run).collect::<Result<Vec<_>>>()?;
    let again: Vec<f64> = again.concat().into_iter().map(f64::from).collect();
    let own: Vec<f64> = check.logits.iter().map(|&logit| f64::from(logit) / model.divisor()).collect();
    let probabilities = |logits: &[f64]| -> Vec<f64> {
        logits.chunks(model.classes.len().max(1)).flat_map(|row| softmax(row, 1.0)).collect()
    };
    let largest = own.iter().fold(0f64, |largest, logit| largest.max(logit.abs()));
    let absolute = furthest(&again, &own);
    let relative = absolute / largest.max(f64::from(f32::MIN_POSITIVE));
    let probability = furthest(&probabilities(&again), &probabilities(&own));
    let agree = again.len() == own.len() && relative <= TOLERANCE && probability <= TOLERANCE;
    Ok(Differences { agree, absolute, relative, probability })
}

/// The largest difference; NaN, which passes no comparison, when there is one.
fn furthest(a: &[f64], b: &[f64]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |a: f64, b| if a.is_nan() || b <= a { a } else { b })
}

/// Moves the files into place; gives their paths and bytes.
fn publish(layout: Layout, staging: &Path, out: &Path) -> Result<(Vec<PathBuf>, u64)> {
    let mut names: Vec<PathBuf> = fs::read_dir(staging)
        .map_err(Error::io("read", staging))?
        .map(|entry| entry.map(|entry| entry.file_name().into()).map_err(Error::io("read", staging)))
        .collect::<Result<_>>()?;
    names.sort();
    let length = |name: &PathBuf| {
        let path = staging.join(name);
        fs::metadata(&path).map(|metadata| metadata.len()).map_err(Error::io("read", &path))
    };
    let bytes = names.iter().map(length).sum::<Result<u64>>()?;
    match layout {
        Layout::Folder => {
            if out.is_dir() {
                fs::remove_dir(out).map_err(Error::io("replace", out))?;
            }
            fs::rename(staging, out).map_err(Error::io("write", out))?;
            Ok((names.iter().map(|name| out.join(name)).collect(), bytes))
        }
        Layout::File(_) => {
            let place = |name: &PathBuf| out.with_file_name(name);
            // The model last: whoever sees it finds the other beside it.
            names.sort_by_key(|name| place(name) == out);
            let put = |name| fs::rename(staging.join(name), place(name)).map_err(Error::io("write", place(name)));
            names.iter().try_for_each(put)?;
            Ok((names.iter().map(place).collect(), bytes))
        }
    }
}
