//! Problems of fetching a model from the Hugging Face Hub.
//!
//! No variant holds a token or the query of a signed address, so that any of them may be printed.

use super::{ExitCode, io_hint};
use crate::system::shown::{Shown, printable};
use std::path::PathBuf;

/// A model that cannot be obtained.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A repository id, a revision or a file name that is malformed.
    #[error("{text:?} is not a valid {kind}: {reason}")]
    Name {
        /// "hub id", "revision", "file name".
        kind: &'static str,
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An environment variable with an unusable value, which is not repeated: it may be a secret.
    #[error("the environment variable {variable} {reason}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The network is off and the cache does not hold what is needed.
    #[error("{model}: {what} is not in the cache {}, and HF_HUB_OFFLINE forbids fetching it", cache.shown())]
    NotCached {
        /// Repository and revision.
        model: String,
        /// The file, or the revision itself.
        what: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The server cannot be reached, breaks off or is overloaded.
    #[error("cannot fetch {}: {}{}", printable(url), printable(reason), tried(*attempts))]
    Unreachable {
        /// Without query and credentials.
        url: String,
        /// Why the last attempt failed.
        reason: String,
        /// Number of attempts.
        attempts: u32,
    },
    /// There is no such repository, or it is hidden from this user.
    #[error("the hub has no model {repo}, or hides it from {}", if *with_token { "this token" } else { "users without a token" })]
    NoRepository {
        /// `owner/name`.
        repo: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("the model {repo} has no revision {revision:?}")]
    NoRevision {
        /// `owner/name`.
        repo: String,
        /// As asked for.
        revision: String,
    },
    /// The repository has no such file.
    #[error("the model {repo} at revision {revision} has no {file}")]
    NoFile {
        /// `owner/name`.
        repo: String,
        /// As asked for.
        revision: String,
        /// The file.
        file: String,
    },
    /// The model's licence has to be accepted first.
    #[error("the model {repo} is gated, and access was refused {}", if *with_token { "to this token" } else { "without a token" })]
    Gated {
        /// `owner/name`.
        repo: String,
        /// The model's page.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The token is wrong or has expired (401), or is not allowed to read this model (403).
    #[error("the hub refuses access to {repo} (status {status})")]
    Refused {
        /// `owner/name`.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// An answer that the Hub would not give.
    #[error("{}: {}", printable(url), printable(reason))]
    Protocol {
        /// Without query and credentials.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// What arrived is not what the hub announced. Nothing of it was kept.
    #[error("{file} of {repo} arrived damaged: {}", printable(reason))]
    Damaged {
        /// `owner/name`.
        repo: String,
        /// The file.
        file: String,
        /// Which size or sum, and which was expected.
        reason: String,
    },
    /// The files arrived as they are on the hub, but cannot be used.
    #[error("the model {repo}: {}", printable(reason))]
    Content {
        /// `owner/name`.
        repo: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot {action} {} in the hub's cache", path.shown())]
    Cache {
        /// A verb.
        action: &'static str,
        /// The path concerned.
        path: PathBuf,
        /// The system's own reason.
        source: std::io::Error,
    },
}

impl HubError {
    /// A closure for `map_err` that attaches the verb and the path to a system error.
    pub fn cache(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Cache { action, path, source }
    }

    /// Usage errors for names and variables, weights for unusable contents, I/O for everything else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Name { .. } | Self::Environment { .. } => ExitCode::Usage,
            Self::Content { .. } | Self::NoFile { .. } => ExitCode::Weights,
            _ => ExitCode::Io,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        const TOKEN: &str = "set HF_TOKEN to a token that may read it (https://huggingface.co/settings/tokens)";
        let hint = match self {
            Self::Name { kind: "hub id", .. } => {
                "write owner/name or owner/name@revision, as in timm/vit_base_patch16_224.augreg_in21k; a local folder may \
                 also be given as ./folder"
            }
            Self::NotCached { .. } => {
                "fetch it once with HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE unset, or point HF_HOME to a cache that holds it"
            }
            Self::Unreachable { .. } => {
                "check the network, the proxy, HF_ENDPOINT and, where a proxy opens encrypted traffic, SSL_CERT_FILE; what \
                 has arrived is kept, and the next run continues from there"
            }
            Self::NoRepository { repo, with_token } => {
                let access = if *with_token { "the token needs access to it" } else { TOKEN };
                let local = format!("if a local folder was meant, there is none at {repo}");
                return Some(format!("check the spelling; {local}; if the model is private, {access}"));
            }
            Self::NoRevision { .. } => "give a branch, a tag or a full commit hash, or leave it out for main",
            Self::Gated { page, with_token, .. } => {
                let token = if *with_token { "use a token of the same account in HF_TOKEN" } else { TOKEN };
                return Some(format!("accept the licence at {page}, then {token}"));
            }
            Self::Refused { with_token: false, .. } => TOKEN,
            Self::Refused { status: 401, .. } => {
                "the token in HF_TOKEN or the token file is wrong or has expired; renew it"
            }
            Self::Refused { .. } => "give the token in HF_TOKEN read access to this model",
            Self::Protocol { .. } => {
                "HF_ENDPOINT must be a Hugging Face hub or a mirror of it; a proxy or a login page may be in between"
            }
            Self::Damaged { .. } => "try again; if it happens again, a proxy or mirror on the way changes the files",
            Self::Cache { source, .. } => {
                let others = ["set HF_HOME to a folder with more", "set HF_HOME to a folder that can be written"];
                return io_hint(source, others);
            }
            Self::NoFile { .. } | Self::Content { .. } => {
                "give a repository with config.json and model.safetensors, or with open_clip_config.json and \
                 open_clip_model.safetensors"
            }
            Self::Name { .. } | Self::Environment { .. } => return None,
        };
        Some(hint.into())
    }
}

fn tried(attempts: u32) -> String {
    if attempts > 1 { format!(" (tried {attempts} times)") } else { String::new() }
}
