//! One file: written to a partial file, continued where it broke off, verified, then published.

use super::cache::{RepoCache, in_cache};
use super::client::{Client, RemoteFile, header, reason};
use super::id::RepoId;
use super::retry::{FailedAttempt, Retry, retry};
use crate::error::{HubError, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};
use ureq::http::{Response, StatusCode};
use ureq::{Body, BodyReader};

/// How far a download has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress<'a> {
    /// The file's name in the repository.
    pub file: &'a str,
    /// Bytes that have arrived, those of an earlier run included.
    pub done: u64,
    /// Bytes in all, where the server tells.
    pub total: Option<u64>,
}

/// Receives the progress, at the start and after each piece.
pub type OnProgress<'a> = dyn FnMut(DownloadProgress<'_>) + 'a;

/// An attempt that has received this much before it broke off does not count as failed.
const WORTH_CONTINUING: u64 = 1 << 20;
const PIECE: usize = 1 << 18;
/// A transfer that brings less than this in so many times the timeout of a read is given up: a server that sends a byte
/// now and then would otherwise never end.
const SLOW_BYTES: u64 = 1 << 16;
const SLOW_WINDOW: u32 = 12;

/// Brings one file of a commit into the cache.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub cache: &'a RepoCache,
    pub id: &'a RepoId,
    pub file: &'a str,
    pub remote: &'a RemoteFile,
}

impl Download<'_> {
    /// Fetches the contents unless they are in the cache under another name, and links them into the snapshot.
    ///
    /// # Errors
    /// When the server cannot be reached, what arrives is not what was announced, or the cache cannot be written. Of a
    /// transfer that broke off the beginning is kept for the next attempt; of a damaged one nothing.
    pub(super) fn run(&self, progress: &mut OnProgress<'_>) -> Result<()> {
        let sum = &self.remote.sum;
        let lock = self.cache.lock(sum)?;
        // Another process may have finished while this one waited.
        if !self.cache.blob(sum).is_file() {
            retry(&self.client.limits, || self.attempt(progress))?;
        }
        drop(lock);
        self.cache.link(sum, &self.remote.commit, self.file)
    }

    fn attempt(&self, progress: &mut OnProgress<'_>) -> Result<(), FailedAttempt> {
        let (mut partial, length) = self.cache.open_incomplete(&self.remote.sum)?;
        let length = if self.remote.size.is_some_and(|size| length > size) { self.empty(&partial)? } else { length };
        // An earlier run may have stopped between the last byte and the verification.
        if self.remote.size != Some(length) || length == 0 {
            self.transfer(&mut partial, length, progress)?;
        }
        self.verify(&partial)?;
        partial.sync_all().map_err(|error| self.unwritable(error))?;
        Ok(self.cache.publish(&self.remote.sum)?)
    }

    /// Writes what the server sends after the first `start` bytes.
    fn transfer(&self, partial: &mut File, start: u64, progress: &mut OnProgress<'_>) -> Result<(), FailedAttempt> {
        let mut response = self.client.open(self.id, &self.remote.commit, self.file, start)?;
        let start = match self.placement(&response, start) {
            Ok(start) => start,
            Err(failure) => {
                self.empty(partial)?;
                return Err(failure);
            }
        };
        if start == 0 {
            self.empty(partial)?;
        }
        partial.seek(SeekFrom::Start(start)).map_err(|error| self.unwritable(error))?;
        let total = self.remote.size.or_else(|| Some(start + header(&response, &CONTENT_LENGTH)?.parse::<u64>().ok()?));
        let written = self.copy(&mut response.body_mut().as_reader(), partial, start, total, progress)?;
        match total {
            Some(total) if written < total => {
                Err(self.broken_off(&format!("{written} of {total} bytes"), written - start))
            }
            _ => Ok(()),
        }
    }

    /// Where the body of an answer belongs: at the start asked for, or at 0 where the server ignores ranges.
    fn placement(&self, response: &Response<Body>, start: u64) -> Result<u64, FailedAttempt> {
        let encoding = header(response, &CONTENT_ENCODING).unwrap_or("identity");
        if !encoding.eq_ignore_ascii_case("identity") {
            return Err(
                self.protocol(format!("sends the file with the encoding {encoding:?}, which was not requested"))
            );
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(response, &CONTENT_RANGE).unwrap_or_default();
                if range_fits(range, start, self.remote.size) {
                    Ok(start)
                } else {
                    Err(self.protocol(format!("sends the bytes {range:?} when asked for those from {start} on")))
                }
            }
            // What is there does not fit the file: it is cut, and the next attempt begins anew.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(FailedAttempt {
                error: self.protocol("has no more bytes than are there already".into()).error,
                again: Retry::Once,
            }),
            _ => match (
                header(response, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()),
                self.remote.size,
            ) {
                // Most likely a page that explains something. It must not be taken for the start of the file.
                (Some(length), Some(size)) if length != size => {
                    Err(self.damaged(format!("{length} bytes are offered instead of {size}")))
                }
                _ => Ok(0),
            },
        }
    }

    /// Copies a body, but never more than the announced size, so that an endless one does not fill the disk.
    fn copy(
        &self,
        body: &mut BodyReader<'_>,
        partial: &mut File,
        start: u64,
        total: Option<u64>,
        progress: &mut OnProgress<'_>,
    ) -> Result<u64, FailedAttempt> {
        let mut piece = vec![0; PIECE];
        let mut done = start;
        let most = total.unwrap_or_else(|| unannounced(self.file));
        let window = self.client.limits.download_timeout * SLOW_WINDOW;
        let (mut since, mut then) = (Instant::now(), start);
        loop {
            progress(DownloadProgress { file: self.file, done, total });
            let read = match body.read(&mut piece) {
                Ok(0) => return Ok(done),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken_off(&cause(&error), done - start)),
            };
            if done + read as u64 > most {
                let why = if total.is_some() { "announced" } else { "that are read where none are announced" };
                return Err(self.damaged(format!("more than the {most} bytes {why}")));
            }
            if since.elapsed() > window {
                if done - then < SLOW_BYTES {
                    return Err(
                        self.broken_off(&format!("{} bytes in {} s", done - then, window.as_secs()), done - start)
                    );
                }
                (since, then) = (Instant::now(), done);
            }
            partial.write_all(&piece[..read]).map_err(|error| self.unwritable(error))?;
            done += read as u64;
        }
    }

    /// Compares size and sum of what is on the disk with what the hub announced.
    fn verify(&self, partial: &File) -> Result<(), FailedAttempt> {
        let path = self.cache.incomplete(&self.remote.sum);
        let length = partial.metadata().map_err(HubError::cache("read", &path))?.len();
        if let Some(size) = self.remote.size.filter(|&size| size != length) {
            return Err(self.damaged(format!("{length} bytes instead of {size}")));
        }
        let sum = self.remote.sum.of_file(&path).map_err(in_cache)?;
        if sum == self.remote.sum { Ok(()) } else { Err(self.damaged(format!("{sum} instead of {}", self.remote.sum))) }
    }

    /// Empties the partial file.
    fn empty(&self, partial: &File) -> Result<u64, FailedAttempt> {
        partial.set_len(0).map_err(|error| self.unwritable(error))?;
        Ok(0)
    }

    /// The network stopped. What has arrived stays for the next attempt.
    fn broken_off(&self, reason: &str, received: u64) -> FailedAttempt {
        let again = if received >= WORTH_CONTINUING { Retry::Continue } else { Retry::Wait(None) };
        let url = self.client.address(self.id, &self.remote.commit, self.file);
        FailedAttempt::network(&url, format!("the transfer broke off ({reason})"), again)
    }

    /// What has arrived is wrong, so nothing of it is kept.
    fn damaged(&self, reason: String) -> FailedAttempt {
        self.discard();
        let (repo, file) = (self.id.repo(), self.file.into());
        FailedAttempt { error: HubError::Damaged { repo, file, reason }.into(), again: Retry::Once }
    }

    /// The disk refuses. On a full disk the partial file would only be in the way.
    fn unwritable(&self, error: io::Error) -> FailedAttempt {
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) {
            self.discard();
        }
        HubError::cache("write", self.cache.incomplete(&self.remote.sum))(error).into()
    }

    fn discard(&self) {
        // Best effort: the failure that is reported is the one that led here.
        let _ = fs::remove_file(self.cache.incomplete(&self.remote.sum));
    }

    fn protocol(&self, reason: String) -> FailedAttempt {
        let url = self.client.address(self.id, &self.remote.commit, self.file);
        HubError::Protocol { url, reason }.into()
    }
}

/// The most bytes that are read of a file whose size no server announced.
fn unannounced(file: &str) -> u64 {
    let is_text = Path::new(file).extension().is_some_and(|extension| extension == "json" || extension == "txt");
    if is_text { 64 << 20 } else { 64 << 30 }
}

/// Why reading a body failed; the client wraps its own errors in those of the system.
fn cause(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    inner.and_then(reason).unwrap_or_else(|| error.to_string())
}

/// Whether a `Content-Range` of the form `bytes FIRST-LAST/SIZE` goes on at `start`.
fn range_fits(range: &str, start: u64, size: Option<u64>) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|range| {
        let (span, total) = range.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse::<u64>().ok()))
    });
    parts.is_some_and(|(first, last, total)| {
        let known = size.or(total);
        first == start
            && last >= first
            && known.is_none_or(|size| last < size && total.is_none_or(|total| total == size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (range, fits) in [
            ("bytes 4-9/10", true),
            ("bytes 4-9/*", true),
            ("bytes 4-6/10", true),
            ("bytes 3-9/10", false),
            ("bytes 4-9/11", false),
            ("bytes 4-10/10", false),
            ("bytes 4-3/10", false),
            ("bytes */10", false),
            ("4-9/10", false),
            ("", false),
        ] {
            assert_eq!(range_fits(range, 4, Some(10)), fits, "{range}");
        }
        assert!(range_fits("bytes 4-9/10", 4, None) && !range_fits("bytes 4-10/10", 4, None));
    }
}
