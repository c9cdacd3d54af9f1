//! Problems of the configuration, all reported at once.

use crate::system::shown::{counted, printable};
use std::fmt;

/// Where in the configuration a problem is. The order is that of the report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Line in the file, from 1.
    Line(usize),
    /// Nowhere: a key that is missing.
    Absent,
    /// An override, as given: `train.lr=fast`.
    Set(String),
    /// Another argument that stands for an override, as given: `--lr fast`.
    Argument(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}: "),
            Self::Absent => Ok(()),
            Self::Set(text) => write!(f, "--set {}: ", printable(text)),
            Self::Argument(text) => write!(f, "{}: ", printable(text)),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// Dotted key, as in `train.lr`; empty when the text is not valid TOML.
    pub key: String,
    /// What is wrong, with the offending value.
    pub message: String,
    /// What would be valid ("did you mean …", a range, the allowed values).
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// All problems of one configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {} in the configuration{}", counted(problems.len(), "problem"), lines(problems))]
pub struct ConfigError {
    /// The file, or the command line when no file was given.
    pub file: String,
    /// At least one problem, in the order of their places.
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
