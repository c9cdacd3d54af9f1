//! What the user says, and how a path is said to the user.

use crate::ladder::shell;
use crate::system::shown::Shown;
use std::path::{Path, PathBuf};

/// What the user has decided already.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// The file to write; by default the name of the data with the ending `.toml`, in the current folder.
    pub out: Option<PathBuf>,
    /// `model.backbone`
    pub backbone: Option<String>,
    /// `model.image_size`
    pub image_size: Option<usize>,
    /// `inspection.good`
    pub good: Option<String>,
    /// `data.columns.label`
    pub label_column: Option<String>,
    /// `data.ignore`
    pub ignore: Vec<String>,
}

/// A path as it is typed in the current folder, quoted for a shell where it has to be.
pub(super) fn shown(path: &Path) -> String {
    let current = std::env::current_dir().unwrap_or_default();
    shell::quoted(&path.strip_prefix(current).unwrap_or(path).shown())
}
