//! Paths of the configuration made absolute.

use crate::error::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// What relative paths are relative to.
#[derive(Debug)]
pub(super) struct Bases {
    /// The config file's folder; the current one without a file.
    pub file: PathBuf,
    /// The current folder, for overrides and defaults.
    pub current: PathBuf,
}

impl Bases {
    /// The folders for a run configured by `file`.
    ///
    /// # Errors
    /// An I/O error when the current folder is gone.
    pub(super) fn of(file: Option<&Path>) -> Result<Self> {
        let current = std::env::current_dir().map_err(Error::io("find", "."))?;
        let file = file.and_then(Path::parent).map_or_else(|| current.clone(), |folder| normal(&current.join(folder)));
        Ok(Self { file, current })
    }
}

/// `path` below `base` with `~`, `.` and `..` resolved, the latter as [`normal`] does.
pub(super) fn absolute(base: &Path, path: &Path) -> PathBuf {
    normal(&base.join(expand_home(path)))
}

/// A path with `.` and `..` resolved by their letters alone: nothing needs to exist, and a symlink before `..` is not
/// followed.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // At the root there is nothing to go up to, as for the operating system itself.
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

/// `~` and `~/…` by the HOME variable; a shell does not expand them inside a file.
fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_path_buf(),
    }
}

/// vitadapt's folder in the user's cache folder, as the XDG base directory specification places it; below the system's
/// temporary folder for a user without a home.
pub(super) fn cache_folder() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("vitadapt")
}

/// `model.backbone` with its path made absolute when it is one; `builtin:NAME` and hub names stay.
///
/// # Errors
/// The path itself when it is not valid UTF-8.
pub(super) fn backbone(base: &Path, text: &str) -> Result<String, PathBuf> {
    let path = Path::new(text);
    if text.starts_with("builtin:") || !(is_spelt_as_path(path) || base.join(path).exists()) {
        return Ok(text.to_owned());
    }
    absolute(base, path).into_os_string().into_string().map_err(PathBuf::from)
}

/// Whether a resolved `model.backbone` names neither a built-in one nor a folder.
pub(super) fn may_be_hub_id(backbone: &str) -> bool {
    !backbone.starts_with("builtin:") && !Path::new(backbone).is_absolute()
}

fn is_spelt_as_path(path: &Path) -> bool {
    path.is_absolute() || [".", "..", "~"].iter().any(|start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_by_their_letters() {
        let base = Path::new("/a/b");
        for (path, expected) in [
            ("c", "/a/b/c"),
            ("../c/./d/", "/a/c/d"),
            ("/x/../y", "/y"),
            ("../../../..", "/"),
            (".", "/a/b"),
            ("~x", "/a/b/~x"),
        ] {
            assert_eq!(absolute(base, Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn only_paths_of_backbones_are_resolved() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("here")).unwrap();
        let kept = |base: &Path, text| backbone(base, text).unwrap();
        let here = folder.path().join("here").display().to_string();
        assert_eq!(kept(folder.path(), "builtin:vit-mini"), "builtin:vit-mini");
        assert_eq!(kept(folder.path(), "timm/vit_base"), "timm/vit_base");
        assert_eq!(kept(folder.path(), "here"), here);
        assert_eq!(kept(folder.path(), "./absent/../here"), here);
        assert_eq!(kept(Path::new("/a"), "../w"), "/w");
    }
}
