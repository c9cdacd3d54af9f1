//! The steps from a model's id to a folder with its files.

use super::cache::RepoCache;
use super::client::{Client, Lookup};
use super::download::{Download, OnProgress};
use super::environment::Environment;
use super::files::{PREPROCESSORS, Wanted};
use super::id::{RepoId, is_commit};
use super::retry::RetryLimits;
use crate::error::{Error, HubError, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The file that is looked up to find the commit of a revision.
const PROBE: &str = "config.json";

/// The hub and its cache, as the environment describes them.
#[derive(Debug)]
pub struct Hub {
    environment: Environment,
    client: Client,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with its files.
    pub folder: PathBuf,
    /// The commit they are from.
    pub commit: String,
    /// Warnings, for example that the server could not be reached and the cache was used instead.
    pub warnings: Vec<String>,
}

impl Hub {
    /// The hub for this process: its environment variables, its proxy.
    ///
    /// # Errors
    /// [`HubError::Environment`] names a variable that cannot be used.
    pub fn from_process() -> Result<Self> {
        Self::new(&|name| std::env::var_os(name), ureq::Proxy::try_from_env())
    }

    /// The hub for an environment given as a function from a variable's name to its value; without a proxy.
    ///
    /// # Errors
    /// As [`Self::from_process`].
    pub fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        Self::new(&get, None)
    }

    fn new(get: &dyn Fn(&str) -> Option<OsString>, proxy: Option<ureq::Proxy>) -> Result<Self> {
        let environment = Environment::read(get)?;
        let limits = RetryLimits {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_mins(1),
            etag_timeout: environment.etag_timeout,
            download_timeout: environment.download_timeout,
        };
        let client = Client::new(&environment, limits, proxy)?;
        Ok(Self { environment, client })
    }

    /// The same hub with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: RetryLimits) -> Self {
        self.client.limits = limits;
        self
    }

    /// Whether it can be asked and has the model, by one attempt.
    pub fn offers(&self, id: &RepoId) -> bool {
        let asked = || self.client.look_up(id, id.revision(), PROBE, 1);
        !self.environment.offline && matches!(asked(), Ok(Lookup::File(_)))
    }

    /// Its limits for retries and timeouts.
    pub fn limits(&self) -> RetryLimits {
        self.client.limits
    }

    /// Brings the wanted files of a model into the cache unless they are there.
    ///
    /// There is no connection at all when `HF_HUB_OFFLINE` is set, nor when the revision is a full commit and the cache
    /// answers every question about it. A branch or a tag is looked up each time; when the server cannot be reached,
    /// the cached commit is used with a warning.
    ///
    /// # Errors
    /// [`HubError`], which tells a failing network from a wrong answer; a weights error when the files are
    /// unusable.
    pub fn fetch(&self, id: &RepoId, wanted: Wanted, progress: &mut OnProgress<'_>) -> Result<Snapshot> {
        let job = Fetch { hub: self, id, wanted, cache: RepoCache::new(&self.environment.cache, id) };
        if self.environment.offline {
            return job.cached();
        }
        if is_commit(id.revision()) && job.is_settled(id.revision())? {
            return job.cached();
        }
        match job.online(progress) {
            Err(error @ Error::Hub(HubError::Unreachable { .. })) => job.instead(error),
            outcome => outcome,
        }
    }
}

/// One fetch.
struct Fetch<'a> {
    hub: &'a Hub,
    id: &'a RepoId,
    wanted: Wanted,
    cache: RepoCache,
}

impl Fetch<'_> {
    /// The snapshot as far as it is in the cache; what is not there counts as not in the repository.
    fn cached(&self) -> Result<Snapshot> {
        let missing = |what: String| HubError::NotCached {
            model: self.id.to_string(),
            what,
            cache: self.hub.environment.cache.clone(),
        };
        let revision = self.id.revision();
        let commit = self.cache.commit(revision).ok_or_else(|| missing(format!("revision {revision:?}")))?;
        if let Some(what) = self.missing(&commit, &mut |file| Ok(self.cache.has(&commit, file)))? {
            return Err(missing(what).into());
        }
        let known = |file: &&str| self.cache.has(&commit, file);
        let may_exist = |file: &&str| !self.cache.lacks(&commit, file);
        let unknown = !PREPROCESSORS.iter().any(known) && PREPROCESSORS.iter().any(may_exist);
        let mut snapshot = self.snapshot(commit);
        if unknown {
            snapshot.warnings.push(format!(
                "the cache does not have the image processor's settings of {} and cannot tell whether there are any, so the usual \
                 ones of its kind are used; fetch the model once without HF_HUB_OFFLINE to be sure",
                self.id
            ));
        }
        Ok(snapshot)
    }

    /// The cached snapshot in place of the server's, or the server's error when there is none.
    fn instead(&self, error: Error) -> Result<Snapshot> {
        let Ok(mut cached) = self.cached() else { return Err(error) };
        cached.warnings.push(format!("{error}; using {} from the cache, commit {}", self.id, cached.commit));
        Ok(cached)
    }

    /// Whether the cache knows, for every file that matters, if the commit has it.
    fn is_settled(&self, commit: &str) -> Result<bool> {
        let mut settled = true;
        let missing = self.missing(commit, &mut |file| {
            let present = self.cache.has(commit, file);
            settled &= present || self.cache.lacks(commit, file);
            Ok(present)
        })?;
        Ok(settled && missing.is_none())
    }

    /// The snapshot, with all missing files fetched. The revision is recorded last, so that it never stands for a
    /// half-complete snapshot.
    fn online(&self, progress: &mut OnProgress<'_>) -> Result<Snapshot> {
        let commit = self.resolve()?;
        match self.missing(&commit, &mut |file| self.ensure(&commit, file, progress))? {
            None => {}
            Some(file) if file == PROBE => return Err(self.no_file(self.id.revision()).into()),
            Some(what) => {
                let reason = format!("has no {what} at revision {}", self.id.revision());
                return Err(HubError::Content { repo: self.id.repo(), reason }.into());
            }
        }
        let remembered = self.cache.remember(self.id.revision(), &commit);
        let mut snapshot = self.snapshot(commit);
        // All files are there, so a cache that became read-only is not a failure.
        snapshot.warnings.extend(remembered.err().map(|error| error.to_string()));
        Ok(snapshot)
    }

    /// The commit that the revision stands for now.
    fn resolve(&self) -> Result<String> {
        let revision = self.id.revision();
        if is_commit(revision) {
            return Ok(revision.into());
        }
        // With a commit in the cache there is something to fall back on, and no reason to wait for long.
        let attempts = if self.cache.commit(revision).is_some() { 1 } else { self.hub.client.limits.attempts };
        match self.hub.client.look_up(self.id, revision, PROBE, attempts)? {
            Lookup::File(remote) => Ok(remote.commit),
            Lookup::Absent(Some(commit)) => Ok(commit),
            Lookup::Absent(None) => Err(self.no_file(revision).into()),
        }
    }

    /// Brings a file into the cache; false when the commit does not have it.
    fn ensure(&self, commit: &str, file: &str, progress: &mut OnProgress<'_>) -> Result<bool> {
        let (client, cache) = (&self.hub.client, &self.cache);
        if cache.has(commit, file) {
            return Ok(true);
        }
        if cache.lacks(commit, file) {
            return Ok(false);
        }
        match client.look_up(self.id, commit, file, client.limits.attempts)? {
            Lookup::Absent(_) => {
                cache.note_absence(commit, file);
                Ok(false)
            }
            Lookup::File(remote) if remote.commit == commit => {
                Download { client, cache, id: self.id, file, remote: &remote }.run(progress)?;
                Ok(true)
            }
            Lookup::File(remote) => {
                let url = client.address(self.id, commit, file);
                let reason = format!("answers with commit {} when asked for {commit}", remote.commit);
                Err(HubError::Protocol { url, reason }.into())
            }
        }
    }

    fn no_file(&self, revision: &str) -> HubError {
        HubError::NoFile { repo: self.id.repo(), revision: revision.into(), file: PROBE.into() }
    }

    fn missing(&self, commit: &str, have: &mut dyn FnMut(&str) -> Result<bool>) -> Result<Option<String>> {
        self.wanted.gather(&self.cache.snapshot(commit), have)
    }

    fn snapshot(&self, commit: String) -> Snapshot {
        Snapshot { folder: self.cache.snapshot(&commit), commit, warnings: Vec::new() }
    }
}
