//! The sums by which the hub names its blobs.

use super::id::is_lower_hex;
use crate::system::digest::{Hasher, hex, sha256_of_file};
use sha1::{Digest, Sha1};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// What an `ETag` of the hub is a sum of. Its text is the blob's name in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// The sum of the bytes: large files, which git knows only by a pointer.
    Sha256(String),
    /// The sum of the bytes after a header with their number: small files, stored in git itself.
    GitBlob(String),
}

impl Checksum {
    /// Reads an `ETag`, weak or not; none when it is not a sum, so that nothing could be verified by it.
    pub(super) fn parse(etag: &str) -> Option<Self> {
        let etag = etag.trim();
        let text = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        match text.len() {
            _ if !is_lower_hex(text) => None,
            64 => Some(Self::Sha256(text.into())),
            40 => Some(Self::GitBlob(text.into())),
            _ => None,
        }
    }

    /// The sum in hexadecimal.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::GitBlob(text) => text,
        }
    }

    /// The same sum of a file as it is on the disk.
    pub(super) fn of_file(&self, path: &Path) -> crate::error::Result<Self> {
        match self {
            Self::Sha256(_) => sha256_of_file(path).map(Self::Sha256),
            Self::GitBlob(_) => git_blob(path).map(Self::GitBlob).map_err(crate::error::Error::io("read", path)),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(text) => write!(f, "SHA-256 {text}"),
            Self::GitBlob(text) => write!(f, "git SHA-1 {text}"),
        }
    }
}

fn git_blob(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Hasher(Sha1::new());
    sum.0.update(format!("blob {}\0", file.metadata()?.len()));
    io::copy(&mut file, &mut sum)?;
    Ok(hex(&sum.0.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_told_apart_by_their_length() {
        let (sha1, sha256) = ("a".repeat(40), "b".repeat(64));
        assert_eq!(Checksum::parse(&format!("\"{sha1}\"")), Some(Checksum::GitBlob(sha1.clone())));
        assert_eq!(Checksum::parse(&format!("W/\"{sha256}\"")), Some(Checksum::Sha256(sha256.clone())));
        assert_eq!(Checksum::parse(&sha256), Some(Checksum::Sha256(sha256.clone())));
        for other in ["", "\"\"", "../x", &sha1[1..], &format!("{sha1}-gzip"), &"B".repeat(64)] {
            assert_eq!(Checksum::parse(other), None, "{other}");
        }
    }

    #[test]
    fn sums_are_those_of_git_and_of_the_standard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello");
        std::fs::write(&path, "hello\n").unwrap();
        let sum = |etag: &str| Checksum::parse(etag).unwrap().of_file(&path).unwrap().text().to_owned();
        // `git hash-object hello` and `sha256sum hello`.
        assert_eq!(sum(&"0".repeat(40)), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(sum(&"0".repeat(64)), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    }
}
