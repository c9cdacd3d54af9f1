//! Writes that survive a crash: a reader sees the old content or the new, never half of one.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Creates a folder and its parents.
///
/// # Errors
/// When the system refuses.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Replaces a file: temporary beside it, fsync, rename, fsync of the folder. On failure the temporary is removed and
/// the old content stays.
///
/// # Errors
/// When the system refuses, naming the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_beside(path);
    let written = write_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("write", path)))
        .and_then(|()| sync_folder(path.parent().unwrap_or(Path::new("."))));
    if written.is_err() {
        // Best effort: the failure that is reported is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes a new file and waits until the disk has it.
///
/// # Errors
/// When the system refuses, naming the path.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", path))
}

/// Adds a line to a file, creating it when absent.
///
/// # Errors
/// When the system refuses, naming the path.
pub fn append_line(path: &Path, line: &str) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(path).map_err(Error::io("open", path))?;
    // One write: a line is never torn by another process's.
    file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io("write", path))
}

/// Waits until the disk has the names in a folder.
///
/// # Errors
/// When the system refuses, naming the path.
pub fn sync_folder(path: &Path) -> Result<()> {
    // Windows cannot open folders as files; its renames are durable without this.
    if cfg!(windows) {
        return Ok(());
    }
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", path))
}

/// A name in the same folder, so that a rename stays within one file system.
fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_names_the_path_and_removes_its_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("full")).unwrap();
        let error = write_atomic(&path, b"x").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
