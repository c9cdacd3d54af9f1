//! Every failure a user can meet, typed, with its exit code and a hint.
//!
//! A message names the file, the key and the value; the hint says what would be valid or what to do next.
//! One place (`main`) prints them, so no module writes to stderr on its own to report a failure.

mod config;
mod data;
mod hub;
mod weights;

pub use config::{ConfigError, Place, Problem};
pub use data::{BadFile, DataError};
pub use hub::HubError;
pub use weights::WeightsError;

use crate::system::shown::{Shown, part_of};
use crate::system::signals::Signal;
use std::path::{Path, PathBuf};

/// The result type of the whole crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the process tells its caller. The numbers are a contract for scripts and CI jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The work is done.
    Done = 0,
    /// An unforeseen failure: a bug.
    Unexpected = 1,
    /// A wrong command line or configuration.
    Usage = 2,
    /// Unusable images, labels or splits.
    Data = 3,
    /// Weights that are damaged or do not fit the architecture.
    Weights = 4,
    /// Reading, writing or downloading failed.
    Io = 5,
    /// A loss, a feature or a logit is not a finite number.
    Numerics = 6,
    /// Another process works in the run directory.
    Locked = 7,
    /// A quality gate (`--min-…`) was missed.
    Gate = 8,
    /// Stopped by SIGINT after saving.
    Interrupted = 130,
    /// Stopped by SIGTERM after saving.
    Terminated = 143,
}

impl ExitCode {
    /// The code of this number; none for others, such as those of a shell.
    pub fn of_number(number: i32) -> Option<Self> {
        [
            Self::Done,
            Self::Unexpected,
            Self::Usage,
            Self::Data,
            Self::Weights,
            Self::Io,
            Self::Numerics,
            Self::Locked,
            Self::Gate,
            Self::Interrupted,
            Self::Terminated,
        ]
        .into_iter()
        .find(|code| *code as i32 == number)
    }
}

/// A failure, by what went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line contradicts itself or names something that does not exist.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be valid.
        hint: Option<String>,
    },
    /// The configuration has problems; all of them are listed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The images, labels or splits cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A model cannot be obtained from the hub or its cache.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The operating system refused an operation on a path.
    #[error("cannot {action} {}", path.shown())]
    Io {
        /// A verb: "read", "write", "create".
        action: &'static str,
        /// The path concerned.
        path: PathBuf,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// Training produced values that are not finite.
    #[error("{0}")]
    Numerics(String),
    /// A finished model gives features or logits that are not finite.
    #[error("{0}")]
    NotFinite(String),
    /// The run directory is in use.
    #[error("{} is in use by another vitadapt process", .0.shown())]
    Locked(PathBuf),
    /// Quality gates that were missed, one line each.
    #[error("{}", .0.join("\n"))]
    Gate(Vec<String>),
    /// A signal ended the run after its state was saved, if it has any.
    #[error("stopped by {}; {}", signal.name(), saved_in(run.as_deref()))]
    Stopped {
        /// The signal.
        signal: Signal,
        /// The run directory to resume; none when the work is short and starts anew.
        run: Option<PathBuf>,
    },
    /// A signal ended a comparison between or in its runs, which are saved.
    #[error("stopped by {}; the finished runs are kept in {}", signal.name(), folder.shown())]
    Interrupted {
        /// The signal.
        signal: Signal,
        /// Where the runs are.
        folder: PathBuf,
    },
    /// Runs of a comparison failed; the others were made.
    #[error("{} failed:\n  {}", part_of(failed.len(), *total, "run"), failed.join("\n  "))]
    Runs {
        /// Each with its reason.
        failed: Vec<String>,
        /// How many there were.
        total: usize,
        /// The exit code of the runs, when they agree.
        code: ExitCode,
    },
    /// The tensor library failed.
    #[error("tensor operation failed: {0}")]
    Tensor(Box<dyn std::error::Error + Send + Sync>),
    /// A drawing could not be made.
    #[error("cannot draw {}: {reason}", path.shown())]
    Plot {
        /// The picture's path.
        path: PathBuf,
        /// The drawing library's reason.
        reason: String,
    },
}

impl Error {
    /// A usage error without a hint.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// A usage error that says what would be valid.
    pub fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// A closure for `map_err` that attaches the verb and the path to a system error.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The same for writing a table, which may be done in many steps.
    pub fn csv(path: &Path) -> impl Fn(csv::Error) -> Self + Copy {
        move |error| Self::io("write", path)(error.into())
    }

    /// The same for the reason why a picture cannot be drawn.
    pub fn plot(path: impl AsRef<Path>) -> impl FnOnce(String) -> Self {
        let path = path.as_ref().to_path_buf();
        move |reason| Self::Plot { path, reason }
    }

    /// The exit code of the process for this failure.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage { .. } | Self::Config(_) => ExitCode::Usage,
            Self::Data(_) => ExitCode::Data,
            Self::Weights(_) => ExitCode::Weights,
            Self::Hub(error) => error.exit_code(),
            Self::Io { .. } | Self::Plot { .. } => ExitCode::Io,
            Self::Numerics(_) | Self::NotFinite(_) => ExitCode::Numerics,
            Self::Locked(_) => ExitCode::Locked,
            Self::Gate(_) => ExitCode::Gate,
            Self::Stopped { signal, .. } | Self::Interrupted { signal, .. } => signal.exit_code(),
            Self::Runs { code, .. } => *code,
            Self::Tensor(_) => ExitCode::Unexpected,
        }
    }

    /// What the user can do about it, when there is something to say.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Usage { hint, .. } => return hint.clone(),
            Self::Data(error) => return error.hint(),
            Self::Weights(error) => return error.hint(),
            Self::Hub(error) => return error.hint(),
            Self::Io { source, .. } => return io_hint(source, ["choose another run.out"; 2]),
            Self::Numerics(_) => "lower train.lr, add warm-up (train.warmup) or clip harder (train.clip_grad)",
            Self::NotFinite(_) => {
                "the weights themselves are finite (that was checked when they were loaded), so values overflow inside the model: \
                 try run.precision = \"f32\" unless it is that already, and else other weights"
            }
            Self::Locked(_) => "wait for it to end, or give this run another run.name",
            Self::Stopped { run: Some(_), .. } => "continue with the same command and --resume",
            Self::Stopped { run: None, .. } => "the same command starts anew",
            Self::Interrupted { .. } => "the same command continues where this one stopped",
            Self::Runs { .. } => {
                "the folder logs holds the output of each run; the same command retries those that failed"
            }
            // Each problem of a configuration has a hint of its own.
            Self::Config(_) | Self::Gate(_) | Self::Tensor(_) | Self::Plot { .. } => return None,
        };
        Some(hint.into())
    }
}

fn saved_in(run: Option<&Path>) -> String {
    run.map_or_else(|| "nothing is saved".into(), |run| format!("the state is saved in {}", run.shown()))
}

/// What to do about a failure of the system; the alternatives to free space and to permissions are the caller's.
fn io_hint(source: &std::io::Error, [roomier, writable]: [&str; 2]) -> Option<String> {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(format!("free some space, or {roomier}")),
        ErrorKind::FileTooLarge => {
            Some("the system limits the size of files here: `ulimit -f` shows and sets it".into())
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Some(format!("check the permissions, or {writable}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_saved_can_be_resumed() {
        let stopped = |run| Error::Stopped { signal: Signal::Interrupt, run };
        let said = |error: Error| format!("{error}; {}", error.hint().unwrap_or_default());
        let saved = said(stopped(Some("runs/a".into())));
        assert_eq!(
            saved,
            "stopped by SIGINT; the state is saved in runs/a; continue with the same command and --resume"
        );
        assert_eq!(said(stopped(None)), "stopped by SIGINT; nothing is saved; the same command starts anew");
    }
}
