//! The cache on disk, in the layout of `huggingface_hub`, so that both use each other's downloads:
//!
//! ```text
//! models--OWNER--NAME/
//!     blobs/SUM                       the contents, once each
//!     blobs/SUM.incomplete            what has arrived of a download that broke off
//!     snapshots/COMMIT/FILE           relative links to blobs
//!     refs/REVISION                   the commit of a branch or tag
//!     .no_exist/COMMIT/FILE           the repository is known not to have this file
//! .locks/models--OWNER--NAME/SUM.lock held while a blob is downloaded
//! ```
//!
//! Reference: `file_download.py` of `huggingface_hub` 2.4.

use super::checksum::Checksum;
use super::id::{RepoId, is_commit};
use crate::error::{Error, HubError, Result};
use crate::system::files::{create_folder, sync_folder, write_atomic};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The part of the cache that belongs to one model.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    /// The part of `cache` for a model; nothing is created.
    pub(super) fn new(cache: &Path, id: &RepoId) -> Self {
        Self { folder: cache.join(id.folder_name()), locks: cache.join(".locks").join(id.folder_name()) }
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Where contents lie once they are verified.
    pub(super) fn blob(&self, sum: &Checksum) -> PathBuf {
        self.folder.join("blobs").join(sum.text())
    }

    /// Where contents are collected until then.
    pub(super) fn incomplete(&self, sum: &Checksum) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", sum.text()))
    }

    /// Whether a file of a commit is there. A link to a missing blob does not count.
    pub(super) fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }

    /// Whether the commit is known not to have a file.
    pub(super) fn lacks(&self, commit: &str, file: &str) -> bool {
        self.absence(commit, file).is_file()
    }

    /// Notes that the commit does not have a file.
    pub(super) fn note_absence(&self, commit: &str, file: &str) {
        let note = self.absence(commit, file);
        // It only saves a lookup the next time, so a cache that cannot be written is not a failure.
        let _ = note.parent().map(fs::create_dir_all);
        let _ = File::options().create(true).append(true).open(note);
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// The commit that a revision had when it was last fetched; a full commit is its own.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.into());
        }
        let commit = fs::read_to_string(self.reference(revision)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.into())
    }

    /// Records the commit of a revision.
    ///
    /// # Errors
    /// When the cache cannot be written, unless it has the commit already.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        create_parent(&path)?;
        write_atomic(&path, commit.as_bytes()).map_err(in_cache)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Waits until no other process downloads these contents, and keeps others from it until the lock is dropped.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub(super) fn lock(&self, sum: &Checksum) -> Result<File> {
        let path = self.locks.join(format!("{}.lock", sum.text()));
        create_parent(&path)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(HubError::cache("create", &path))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => file.lock(),
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        match locked {
            // Some network file systems have no locks. Two processes then write the same bytes to the same places.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(file),
            other => other.map(|()| file).map_err(HubError::cache("lock", path)).map_err(Into::into),
        }
    }

    /// Opens the partial file of some contents for writing, and returns its length.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub(super) fn open_incomplete(&self, sum: &Checksum) -> Result<(File, u64)> {
        let path = self.incomplete(sum);
        create_parent(&path)?;
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(HubError::cache("create", &path))?;
        let length = file.metadata().map_err(HubError::cache("read", path))?.len();
        Ok((file, length))
    }

    /// Gives verified contents their name: from now on they count as cached.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub(super) fn publish(&self, sum: &Checksum) -> Result<()> {
        let (from, to) = (self.incomplete(sum), self.blob(sum));
        fs::rename(&from, &to).map_err(HubError::cache("write", &to))?;
        sync_folder(&self.folder.join("blobs")).map_err(in_cache)
    }

    /// Links contents as a file of a commit.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub(super) fn link(&self, sum: &Checksum, commit: &str, file: &str) -> Result<()> {
        let link = self.snapshot(commit).join(file);
        create_parent(&link)?;
        let create = || link_blob(&self.blob(sum), &format!("../../blobs/{}", sum.text()), &link);
        let created = create().or_else(|error| match error.kind() {
            // Another process was faster; or the link is there, but not what it leads to.
            ErrorKind::AlreadyExists if self.has(commit, file) => Ok(()),
            ErrorKind::AlreadyExists => fs::remove_file(&link).and_then(|()| create()),
            _ => Err(error),
        });
        Ok(created.map_err(HubError::cache("create", &link))?)
    }
}

/// A relative link, so that the cache may be moved.
#[cfg(unix)]
fn link_blob(_blob: &Path, relative: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

/// Windows allows links only to some users; a copy is what `huggingface_hub` makes for the others.
#[cfg(not(unix))]
fn link_blob(blob: &Path, _relative: &str, link: &Path) -> io::Result<()> {
    fs::copy(blob, link).map(|_| ())
}

fn create_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), create_folder).map_err(in_cache)
}

/// A system error as one of the cache, which has another hint.
pub(super) fn in_cache(error: Error) -> Error {
    match error {
        Error::Io { action, path, source } => HubError::Cache { action, path, source }.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache(folder: &Path) -> RepoCache {
        RepoCache::new(folder, &RepoId::parse("acme/vit").unwrap())
    }

    fn sum() -> Checksum {
        Checksum::parse(&"a".repeat(40)).unwrap()
    }

    #[test]
    fn a_published_content_appears_in_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (mut file, length) = cache.open_incomplete(&sum()).unwrap();
        assert_eq!(length, 0);
        io::Write::write_all(&mut file, b"x").unwrap();
        cache.publish(&sum()).unwrap();
        for _ in 0..2 {
            cache.link(&sum(), COMMIT, "config.json").unwrap();
        }
        assert!(cache.has(COMMIT, "config.json"));
        let link = folder.path().join("models--acme--vit/snapshots").join(COMMIT).join("config.json");
        #[cfg(unix)]
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("../../blobs").join("a".repeat(40)));
        assert_eq!(fs::read(link).unwrap(), b"x");
    }

    #[test]
    #[cfg(unix)]
    fn a_link_to_a_lost_blob_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        cache.link(&Checksum::parse(&"b".repeat(40)).unwrap(), COMMIT, "config.json").unwrap();
        assert!(!cache.has(COMMIT, "config.json"));
        cache.open_incomplete(&sum()).unwrap();
        cache.publish(&sum()).unwrap();
        cache.link(&sum(), COMMIT, "config.json").unwrap();
        assert!(cache.has(COMMIT, "config.json"));
    }

    #[test]
    fn revisions_and_absences_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        assert_eq!(cache.commit(COMMIT).as_deref(), Some(COMMIT));
        assert_eq!(cache.commit("refs/pr/1"), None);
        cache.remember("refs/pr/1", COMMIT).unwrap();
        assert_eq!(cache.commit("refs/pr/1").as_deref(), Some(COMMIT));
        fs::write(folder.path().join("models--acme--vit/refs/odd"), "../../x").unwrap();
        assert_eq!(cache.commit("odd"), None);
        assert!(!cache.lacks(COMMIT, "vocab.json"));
        cache.note_absence(COMMIT, "vocab.json");
        assert!(cache.lacks(COMMIT, "vocab.json"));
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let lock = cache.lock(&sum()).unwrap();
        let path = folder.path().join(".locks/models--acme--vit").join(format!("{}.lock", sum().text()));
        let second = File::open(path).unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        assert!(second.try_lock().is_ok());
    }

    #[test]
    fn an_unusable_cache_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = cache(&file).lock(&sum()).unwrap_err();
        assert!(error.to_string().contains("file/.locks"), "{error}");
        assert_eq!(error.exit_code() as u8, 5);
    }
}
