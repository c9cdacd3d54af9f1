//! One process per run directory.

use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::Path;

/// An exclusive hold on a run directory. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock file of `folder` without waiting.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process holds it, an I/O error when the folder cannot be written.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(".lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(folder.to_path_buf())),
            // Some shared file systems have no locks: better unguarded than not at all.
            Err(TryLockError::Error(source)) if source.kind() == std::io::ErrorKind::Unsupported => {
                Ok(Self { _file: file })
            }
            Err(TryLockError::Error(source)) => Err(Error::io("lock", &path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::acquire(folder.path()).unwrap();
        assert!(matches!(Lock::acquire(folder.path()), Err(Error::Locked(_))));
        drop(first);
        assert!(Lock::acquire(folder.path()).is_ok());
    }
}
