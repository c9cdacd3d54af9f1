//! Reading the file itself.

use crate::error::{ConfigError, Error, Place, Problem, Result};
use crate::system::files::read_at_most;
use crate::system::shown::Shown;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Far above any configuration; keeps a wrong argument (a model, a device) out of memory.
const MOST_BYTES: u64 = 1 << 20;

/// The text of a configuration file.
///
/// # Errors
/// A usage error when it cannot be read, with the TOML files beside it; a [`ConfigError`] when it is not UTF-8.
pub(super) fn text(file: &Path) -> Result<String> {
    let Some(bytes) = read_at_most(file, MOST_BYTES).map_err(|error| unreadable(file, &error))? else {
        let message = format!("{} is larger than 1 MiB", file.shown());
        return Err(Error::usage_hint(message, "give the TOML file that configures the run"));
    };
    String::from_utf8(bytes).map_err(|error| not_utf8(file, error.as_bytes(), error.utf8_error().valid_up_to()))
}

fn unreadable(file: &Path, error: &io::Error) -> Error {
    let message = format!("cannot read the configuration {}: {error}", file.shown());
    let nearby = if error.kind() == ErrorKind::NotFound { nearby(file) } else { Vec::new() };
    let hint = (!nearby.is_empty()).then(|| format!("TOML files there: {}", nearby.join(", ")));
    Error::Usage { message, hint }
}

/// The TOML files in the folder of `file`, those with the most similar names first.
fn nearby(file: &Path) -> Vec<String> {
    const MOST_NAMES: usize = 5;
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let wanted = name(file).unwrap_or_default();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let mut names: Vec<String> = entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .filter_map(|path| name(&path))
        .collect();
    names.sort();
    names.sort_by(|a, b| strsim::jaro_winkler(&wanted, b).total_cmp(&strsim::jaro_winkler(&wanted, a)));
    names.truncate(MOST_NAMES);
    names
}

fn not_utf8(file: &Path, bytes: &[u8], valid: usize) -> Error {
    let line = bytes.iter().take(valid).filter(|&&byte| byte == b'\n').count() + 1;
    let problem = Problem {
        place: Place::Line(line),
        key: String::new(),
        message: "not valid UTF-8".into(),
        hint: Some("save the file as UTF-8".into()),
    };
    Error::Config(ConfigError { file: file.shown(), problems: vec![problem] })
}
