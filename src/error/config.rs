//! Problems of the configuration, all reported at once.

use std::fmt;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; none for a problem of `--set` or of an absent key.
    pub line: Option<usize>,
    /// Dotted key, as in `train.lr`.
    pub key: String,
    /// What is wrong, with the offending value.
    pub message: String,
    /// What would be valid ("did you mean …", a range, the allowed values).
    pub hint: Option<String>,
}

/// All problems of one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or `--set` when no file was given.
    pub file: String,
    /// At least one problem, in the order of their lines.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// The hints stand beside each problem, so there is none for the whole.
    pub fn hint(&self) -> Option<String> {
        None
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "{}: {n} problem{} in the configuration", self.file, if n == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            match problem.line {
                Some(line) => write!(f, "\n  line {line}: ")?,
                None => write!(f, "\n  ")?,
            }
            write!(f, "{}: {}", problem.key, problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, " ({hint})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
