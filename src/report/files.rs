//! Files that are either old or new, never half written.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Writes `bytes` to `path` so that a reader, or a crash at any moment, finds the old content or the new.
///
/// The bytes go to a temporary file of the same folder, are synced and renamed into place; then the folder is synced.
///
/// # Errors
/// [`Error::Io`] naming `path`; the temporary is removed and the old content stays.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes).map_err(Error::io("write", path))
}

/// Appends `line` and a line break to `path`, creating it, and syncs.
///
/// A line that a crash cut short is closed first, so that it spoils only itself.
///
/// # Errors
/// [`Error::Io`] naming `path`; the file is cut back to its old length.
pub fn append_line(path: &Path, line: &str) -> Result<()> {
    append(path, line).map_err(Error::io("append to", path))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = Temporary::beside(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary.0, path)?;
    sync_folder(path)
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    let text = format!("{}{line}\n", if ends_inside_a_line(&mut file, length)? { "\n" } else { "" });
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(length)?;
    }
    written
}

fn ends_inside_a_line(file: &mut File, length: u64) -> io::Result<bool> {
    if length == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// A path that is removed when dropped; after a successful rename there is nothing left to remove.
struct Temporary(PathBuf);

impl Temporary {
    /// A hidden name beside `path` that no other write of this or another process uses.
    fn beside(path: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        Ok(Self(path.with_file_name(hidden)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The write's own error matters more than a failure to clean up after it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the rename itself durable. Only Unix lets a folder be opened and synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_content_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a b.json"]);
    }

    #[test]
    fn a_failure_names_the_path_and_removes_the_temporary() {
        let folder = tempfile::tempdir().unwrap();
        // A folder cannot be replaced by a file, which only the rename finds out.
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write_atomic(&path, b"new").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
        assert_eq!(names(folder.path()), ["taken"]);
        assert!(write_atomic(&folder.path().join("absent/file"), b"").is_err());
        assert!(write_atomic(Path::new("/"), b"").is_err());
    }

    #[test]
    fn lines_are_appended_and_a_torn_one_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        append_line(&path, "{\"epoch\":1}").unwrap();
        append_line(&path, "{\"epoch\":2}").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"epoch\":1}\n{\"epoch\":2}\n");
        fs::write(&path, "{\"epoch\":1}\n{\"epo").unwrap();
        append_line(&path, "{\"epoch\":2}").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"epoch\":1}\n{\"epo\n{\"epoch\":2}\n");
    }
}
