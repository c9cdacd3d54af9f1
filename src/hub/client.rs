//! The client: one request at a time, redirects followed by hand so that the token stays with its host.

use super::checksum::Checksum;
use super::environment::{Environment, Token};
use super::id::{RepoId, is_commit};
use super::retry::{FailedAttempt, Retry, RetryLimits, retry};
use crate::error::{HubError, Result};
use std::time::Duration;
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderName, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

const MOST_REDIRECTS: usize = 10;
const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");

/// What the hub announces about a file before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// The commit that the revision stands for.
    pub commit: String,
    /// The checksum of the contents.
    pub sum: Checksum,
    /// In bytes, where the server tells.
    pub size: Option<u64>,
}

/// What looking up a file has found.
#[derive(Debug)]
pub(super) enum Lookup {
    /// It is there.
    File(RemoteFile),
    /// The repository and the revision are there, the file is not. With the commit that the revision stands for, unless the
    /// server is a plain mirror.
    Absent(Option<String>),
}

/// A client for one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    /// Its limits for retries and timeouts.
    pub limits: RetryLimits,
}

impl Client {
    /// A client as the environment describes it. It connects to nothing yet.
    ///
    /// # Errors
    /// When `SSL_CERT_FILE` cannot be read.
    pub(super) fn new(environment: &Environment, limits: RetryLimits, proxy: Option<Proxy>) -> Result<Self> {
        let roots = match &environment.certificates {
            Some(file) => certificates(&std::fs::read(file).map_err(crate::error::Error::io("read", file))?)?,
            None => RootCerts::WebPki,
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("vitadapt/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, endpoint: environment.endpoint.clone(), token: environment.token.clone(), limits })
    }

    /// The address of a file, which is also how messages name it.
    pub(super) fn address(&self, id: &RepoId, revision: &str, file: &str) -> String {
        format!("{}/{}/resolve/{}/{}", self.endpoint, id.repo(), encoded(revision), encoded(file))
    }

    /// Looks up a file's commit, sum and size, with at most `attempts` attempts.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or is not a hub.
    pub(super) fn look_up(&self, id: &RepoId, revision: &str, file: &str, attempts: u32) -> Result<Lookup> {
        let url = self.address(id, revision, file);
        let limits = RetryLimits { attempts, ..self.limits };
        retry(&limits, || {
            let response = self.request(&Method::HEAD, &url, limits.etag_timeout, 0)?;
            if is_absence(&response) {
                return Ok(Lookup::Absent(commit(&response)));
            }
            self.check_status(&response, id, revision, &url)?;
            describe(&response)
                .map(Lookup::File)
                .map_err(|reason| HubError::Protocol { url: url.clone(), reason: reason.into() }.into())
        })
    }

    /// Asks for the contents of a file from byte `start` on, once.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub(super) fn open(
        &self,
        id: &RepoId,
        commit: &str,
        file: &str,
        start: u64,
    ) -> Result<Response<Body>, FailedAttempt> {
        let url = self.address(id, commit, file);
        let response = self.request(&Method::GET, &url, self.limits.download_timeout, start)?;
        if response.status() == StatusCode::NOT_FOUND {
            let (repo, revision, file) = (id.repo(), commit.into(), file.into());
            return Err(HubError::NoFile { repo, revision, file }.into());
        }
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            self.check_status(&response, id, commit, &url)?;
        }
        Ok(response)
    }

    /// Follows redirects to the answer. A `HEAD` that is sent to storage, on another host or by a link, has been answered
    /// before: the hub describes the file and leaves only the contents to storage.
    fn request(
        &self,
        method: &Method,
        url: &str,
        timeout: Duration,
        start: u64,
    ) -> Result<Response<Body>, FailedAttempt> {
        let protocol = |reason: &str| HubError::Protocol { url: url.into(), reason: reason.into() };
        let mut at: Uri = url.parse().map_err(|_| protocol("is not a valid address"))?;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(method, &at, url, timeout, start)?;
            let target = match (response.status().is_redirection(), header(&response, &LOCATION)) {
                (true, Some(location)) => redirected(&at, location),
                _ => return Ok(response),
            };
            let target = target.ok_or_else(|| protocol("redirects to an address that is not valid"))?;
            let leaves = origin(&target) != origin(&at) || response.headers().contains_key(LINKED_ETAG);
            if method == Method::HEAD && leaves && describe(&response).is_ok() {
                return Ok(response);
            }
            if at.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
                return Err(protocol("redirects from https to an address without encryption").into());
            }
            at = target;
        }
        Err(protocol("redirects endlessly").into())
    }

    /// Sends one request. The token goes to the endpoint only.
    fn send(
        &self,
        method: &Method,
        at: &Uri,
        url: &str,
        timeout: Duration,
        start: u64,
    ) -> Result<Response<Body>, FailedAttempt> {
        // A compressed answer would have another size and sum than the file.
        let mut request = Request::builder().method(method).uri(at).header(ACCEPT_ENCODING, "identity");
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_endpoint(at)) {
            request = request.header(AUTHORIZATION, token.header());
        }
        let unusable = |reason: String| HubError::Protocol { url: url.into(), reason };
        let request = request.body(()).map_err(|error| unusable(error.to_string()))?;
        let request = self.agent.configure_request(request);
        let request = request
            .timeout_connect(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_per_read(Some(timeout))
            .build();
        self.agent.run(request).map_err(|error| match reason(&error) {
            Some(reason) => FailedAttempt::network(url, reason, Retry::Wait(None)),
            None => unusable(error.to_string()).into(),
        })
    }

    fn is_endpoint(&self, at: &Uri) -> bool {
        self.endpoint.parse().is_ok_and(|endpoint: Uri| origin(&endpoint) == origin(at))
    }

    /// Turns an unsuccessful status into the failure that it means.
    fn check_status(
        &self,
        response: &Response<Body>,
        id: &RepoId,
        revision: &str,
        url: &str,
    ) -> Result<(), FailedAttempt> {
        let (status, repo, with_token) = (response.status(), id.repo(), self.token.is_some());
        let error = match (status.as_u16(), header(response, &ERROR_CODE).unwrap_or_default()) {
            (200..=399, _) => return Ok(()),
            (_, "RevisionNotFound") => HubError::NoRevision { repo, revision: revision.into() },
            (_, "GatedRepo") => HubError::Gated { page: format!("{}/{repo}", self.endpoint), repo, with_token },
            (404, _) | (401, "RepoNotFound") => HubError::NoRepository { repo, with_token },
            // The hub answers like this for what does not exist, so as not to reveal what is private.
            (401, _) if !with_token => HubError::NoRepository { repo, with_token },
            (status @ (401 | 403), _) => HubError::Refused { repo, status, with_token },
            (408 | 429 | 500..=599, _) => {
                return Err(FailedAttempt::network(
                    url,
                    format!("status {status}"),
                    Retry::Wait(retry_after(response)),
                ));
            }
            _ => HubError::Protocol { url: url.into(), reason: format!("unexpected status {status}") },
        };
        Err(error.into())
    }
}

/// The contents of a header, if they are text.
pub(super) fn header<'a>(response: &'a Response<Body>, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Whether the answer says that the repository and the revision exist, but not the file.
fn is_absence(response: &Response<Body>) -> bool {
    response.status() == StatusCode::NOT_FOUND
        && match header(response, &ERROR_CODE) {
            Some(code) => code == "EntryNotFound",
            None => response.headers().contains_key(COMMIT),
        }
}

fn commit(response: &Response<Body>) -> Option<String> {
    header(response, &COMMIT).filter(|commit| is_commit(commit)).map(str::to_owned)
}

/// Reads what an answer says about a file.
fn describe(response: &Response<Body>) -> Result<RemoteFile, &'static str> {
    let commit =
        commit(response).ok_or("the answer names no commit (X-Repo-Commit), so it does not come from a hub")?;
    let etag = header(response, &LINKED_ETAG).or_else(|| header(response, &ETAG));
    let etag = etag.ok_or("the answer has no ETag, so that the file could not be verified")?;
    let sum = Checksum::parse(etag)
        .ok_or("the ETag is not a SHA-256 or git SHA-1, so that the file could not be verified")?;
    Ok(RemoteFile { commit, sum, size: announced_size(response) })
}

/// The size of the file, not that of a page that only redirects to it.
fn announced_size(response: &Response<Body>) -> Option<u64> {
    let length = || header(response, &CONTENT_LENGTH).filter(|_| !response.status().is_redirection());
    header(response, &LINKED_SIZE).or_else(length)?.parse().ok()
}

/// The seconds of `Retry-After`; dates are left to the usual waits.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    header(response, &RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
}

/// Why a request failed, if trying again may help. It names no address: the one that a redirect led to may be signed.
pub(super) fn reason(error: &ureq::Error) -> Option<String> {
    use ureq::Error;
    Some(match error {
        Error::Io(error) => error.to_string(),
        Error::Timeout(_) => "no answer in time".into(),
        Error::HostNotFound => "the host is not known".into(),
        Error::ConnectionFailed => "the connection failed".into(),
        Error::Protocol(error) => error.to_string(),
        _ => return None,
    })
}

fn certificates(pem: &[u8]) -> Result<RootCerts, HubError> {
    let certificates: Vec<_> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let reason = "names a file without certificates".into();
        return Err(HubError::Environment { variable: "SSL_CERT_FILE", reason });
    }
    Ok(certificates.into())
}

/// Scheme, host and port: what a token belongs to.
fn origin(uri: &Uri) -> (Option<&str>, Option<String>, u16) {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    (uri.scheme_str(), uri.host().map(str::to_ascii_lowercase), uri.port_u16().unwrap_or(default))
}

/// The address that a `Location` means, relative to another (RFC 3986, section 5.2, without `.` and `..`, which the hub
/// does not send).
fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?.as_str());
    let location = location.split('#').next()?;
    let absolute = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = absolute.parse().ok()?;
    uri.host().is_some_and(|host| !host.is_empty()).then_some(uri)
}

/// Percent-encodes a text as one segment of a path.
fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn locations_are_resolved() {
        let from = uri("https://hub.example/a/b/resolve/main/config.json");
        for (location, expected) in [
            ("https://cdn.example/x?sig=1#top", "https://cdn.example/x?sig=1"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/api/x?y=1", "https://hub.example/api/x?y=1"),
            ("other.json", "https://hub.example/a/b/resolve/main/other.json"),
        ] {
            assert_eq!(redirected(&from, location), Some(uri(expected)), "{location}");
        }
        for bad in ["https://", "http://a b/", "https:///x"] {
            assert_eq!(redirected(&from, bad), None, "{bad}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin(&uri("https://Hub.example/a")), origin(&uri("https://hub.example:443/b")));
        for other in ["http://hub.example/a", "https://hub.example:8443/a", "https://cdn.hub.example/a"] {
            assert_ne!(origin(&uri("https://hub.example/a")), origin(&uri(other)), "{other}");
        }
    }

    #[test]
    fn revisions_become_one_segment() {
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encoded("v1.0-a_b~c#d e"), "v1.0-a_b~c%23d%20e");
    }
}
