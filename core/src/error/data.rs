//! Problems of images, labels and splits.

use crate::system::shown::{Shown, counted, printable};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A file that cannot be used, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be used.
    pub reason: String,
}

/// A failure of the data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Files that cannot be decoded or read, all of them.
    #[error("{} cannot be used:{}", counted(files.len(), "image"), list(files))]
    BadFiles {
        /// Every bad file found.
        files: Vec<BadFile>,
    },
    /// Anything else, with what to do about it.
    #[error("{message}")]
    Invalid {
        /// What is wrong, naming the file or folder.
        message: String,
        /// What would be valid.
        hint: Option<String>,
    },
}

impl DataError {
    /// A data error with its remedy.
    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: Some(hint.into()) }
    }

    /// One file that cannot be used.
    pub fn bad_file(path: &Path, reason: impl Display) -> Self {
        Self::BadFiles { files: vec![BadFile { path: path.to_path_buf(), reason: reason.to_string() }] }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadFiles { .. } => {
                Some("repair or remove the files, or set data.on_error = \"skip\" to leave them out".into())
            }
            Self::Invalid { hint, .. } => hint.clone(),
        }
    }
}

fn list(files: &[BadFile]) -> String {
    files.iter().map(|bad| format!("\n  {}: {}", bad.path.shown(), printable(&bad.reason))).collect()
}
