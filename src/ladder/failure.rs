//! Why a run did not finish.

use crate::error::ExitCode;
use crate::system::child::killed_by;
use crate::system::shown::Shown;
use std::path::Path;
use std::process::ExitStatus;

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFailure {
    /// The first line of its error, or what else is known.
    pub reason: String,
    /// The exit code that its failure asks for.
    pub code: ExitCode,
}

impl RunFailure {
    /// From how the process ended and what it has written to its log; none when it succeeded.
    pub fn of(status: ExitStatus, log: &Path) -> Option<Self> {
        if status.success() {
            return None;
        }
        let reason = match (killed_by(status), status.code()) {
            (Some(9), _) => "was killed (signal 9), as happens when the system runs out of memory".into(),
            (Some(signal), _) => format!("was killed by signal {signal}"),
            (None, Some(code)) => {
                said(log).unwrap_or_else(|| format!("ended with exit code {code}; see {}", log.shown()))
            }
            (None, None) => "ended for an unknown reason".into(),
        };
        let code = status.code().and_then(ExitCode::of_number).unwrap_or(ExitCode::Unexpected);
        Some(Self { reason, code })
    }
}

/// The last error in the log of a run.
pub fn said(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().rev().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_last_error_of_the_log_is_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "data      6 train\nerror: weights\n  missing: a\n\nhint: x\n").unwrap();
        let of = |raw: i32| RunFailure::of(ExitStatus::from_raw(raw), &log);
        assert_eq!(of(0), None);
        assert_eq!(of(4 << 8), Some(RunFailure { reason: "weights".into(), code: ExitCode::Weights }));
        let killed = of(9).unwrap();
        assert!(killed.reason.contains("out of memory") && killed.code == ExitCode::Unexpected);
        let silent = RunFailure::of(ExitStatus::from_raw(101 << 8), &folder.path().join("none")).unwrap();
        assert!(silent.reason.starts_with("ended with exit code 101; see "), "{silent:?}");
    }
}
