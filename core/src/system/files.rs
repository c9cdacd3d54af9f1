//! Writes that survive a crash: a reader sees the old content or the new, never half of one.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// Creates a folder and its parents.
///
/// # Errors
/// When the system refuses.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// A file or folder under a temporary name beside its target. It takes the target's name when it is complete and is
/// removed when it is dropped before.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// A name of its own in the target's folder, so that the rename stays within one file system. Nothing is created.
    ///
    /// # Errors
    /// When the target is a pipe, device or socket: the rename would put a file in its place.
    pub fn beside(target: &Path) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        /// Tells this process from those of the same number in other containers and on other machines.
        static BORN: LazyLock<u128> = LazyLock::new(|| UNIX_EPOCH.elapsed().map_or(0, |age| age.as_nanos()));
        if target.exists() && !target.is_dir() {
            check_regular(target).map_err(Error::io("replace", target))?;
        }
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = target.with_file_name(format!(".{name}.{}-{:x}-{number}.tmp", std::process::id(), *BORN));
        Ok(Self { temporary, target: target.to_path_buf() })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// What it becomes.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives it the target's name; the disk may not have the name yet.
    ///
    /// # Errors
    /// When the system refuses, naming the target.
    pub fn rename(self) -> Result<()> {
        fs::rename(&self.temporary, &self.target).map_err(Error::io("write", &self.target))
    }

    /// Gives it the target's name and waits until the disk has it.
    ///
    /// # Errors
    /// When the system refuses, naming the path.
    pub fn publish(self) -> Result<()> {
        let folder = self.target.parent().unwrap_or(Path::new(".")).to_path_buf();
        self.rename()?;
        sync_folder(&folder)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Best effort, and gone already when it was published.
        let _ = if self.temporary.is_dir() {
            fs::remove_dir_all(&self.temporary)
        } else {
            fs::remove_file(&self.temporary)
        };
    }
}

/// The content of a regular file. A pipe, device or socket is refused at once, where reading it could wait for ever.
///
/// # Errors
/// When it is none, or the system refuses.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    check_regular(path)?;
    fs::read(path)
}

/// The same of at most `most` bytes; none when there are more.
///
/// # Errors
/// As [`read_regular`].
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    check_regular(path)?;
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= most))
}

/// Refuses what is not a regular file, or a link to one.
///
/// # Errors
/// When it is none, or the system refuses.
pub fn check_regular(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(()),
        (_, true) => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe, device or socket, not a file")),
    }
}

/// Replaces a file: temporary beside it, fsync, rename, fsync of the folder. On failure the temporary is removed and
/// the old content stays.
///
/// # Errors
/// When the system refuses, naming the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let staged = Staged::beside(path)?;
    write_synced(staged.path(), bytes)?;
    staged.publish()
}

/// Writes a new file and waits until the disk has it.
///
/// # Errors
/// When the system refuses, naming the path.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", path))
}

/// Runs a writer that replaces a file by one of its own making, gives the result the mode of any new file, since some
/// libraries write through a temporary that only its owner may read, and waits until the disk has it.
///
/// # Errors
/// When the system refuses, or those of the writer.
pub fn keeping_mode(path: &Path, write: impl FnOnce() -> Result<()>) -> Result<()> {
    let usual = File::create(path).and_then(|file| file.metadata()).map_err(Error::io("create", path))?.permissions();
    write()?;
    fs::set_permissions(path, usual).and_then(|()| File::open(path)?.sync_all()).map_err(Error::io("write", path))
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

    #[cfg(unix)]
    #[test]
    fn a_device_is_not_replaced_by_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("out.csv");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(write_atomic(&link, b"x").unwrap_err().to_string().contains("out.csv"));
        assert!(link.is_symlink());
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
