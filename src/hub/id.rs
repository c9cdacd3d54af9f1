//! Names of models, revisions and files. They become addresses and paths, so they are checked before either.

use crate::error::HubError;
use std::fmt;
use std::path::Path;

/// The branch that is meant when none is named.
const DEFAULT_REVISION: &str = "main";
/// What the hub allows for each half of an id.
const LONGEST_NAME: usize = 96;
/// What file systems allow for one name.
const LONGEST_REVISION: usize = 255;

/// A model on the hub: `owner/name`, optionally `owner/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    owner: String,
    name: String,
    revision: Option<String>,
}

impl RepoId {
    /// Takes an id apart. Ids without an owner are not accepted: they would be taken for folders, and the hub has moved
    /// the few it had.
    ///
    /// # Errors
    /// [`HubError::Name`], which says what is wrong.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let (id, revision) = text.split_once('@').map_or((text, None), |(id, revision)| (id, Some(revision)));
        let refuse = |reason| HubError::Name { kind: "hub id", text: text.into(), reason };
        let (owner, name) = id.split_once('/').ok_or_else(|| refuse("there is no / between owner and name"))?;
        if let Some(reason) = fault_of_name(owner).or_else(|| fault_of_name(name)) {
            return Err(refuse(reason));
        }
        if name.strip_suffix(".git").is_some() {
            return Err(refuse("the name ends in .git"));
        }
        let repo = Self { owner: owner.into(), name: name.into(), revision: None };
        match revision {
            Some(revision) => repo.at(revision),
            None => Ok(repo),
        }
    }

    /// The model of the hub that `model.backbone` names, if it does: it is not `builtin:NAME`, has the form of an id,
    /// and there is no folder of that name. `./owner/name` and absolute paths are always folders.
    ///
    /// # Errors
    /// As [`Self::parse`], for what has the form of an id and is none.
    pub fn of_backbone(text: &str) -> Result<Option<Self>, HubError> {
        if Self::has_form(text) && !Path::new(text).exists() { Self::parse(text).map(Some) } else { Ok(None) }
    }

    /// Whether a text has the form of a hub id, rather than of a path: one `/` before any `@`, and no `.` or `~` at
    /// the start. It may still be malformed.
    fn has_form(text: &str) -> bool {
        let id = text.split_once('@').map_or(text, |(id, _)| id);
        id.matches('/').count() == 1 && !id.starts_with(['/', '.', '~']) && !id.starts_with("builtin:")
    }

    /// The same model at another branch, tag or commit.
    ///
    /// # Errors
    /// [`HubError::Name`] when git would not accept such a name.
    pub fn at(mut self, revision: &str) -> Result<Self, HubError> {
        if let Some(reason) = fault_of_revision(revision) {
            return Err(HubError::Name { kind: "revision", text: revision.into(), reason });
        }
        self.revision = Some(revision.into());
        Ok(self)
    }

    /// `owner/name`.
    pub fn repo(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The revision asked for, `main` if none.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The folder of this model below a cache: `models--owner--name`.
    pub(super) fn folder_name(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

/// A full commit hash: 40 lower-case hexadecimal digits. What it names never changes.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_lower_hex(revision)
}

pub(super) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Checks the name of a shard, which comes out of a downloaded file: a plain file name in the repository's root.
///
/// # Errors
/// [`HubError::Name`] for folders, `..`, drive letters, hidden files and control characters.
pub(super) fn check_file_name(name: &str) -> Result<(), HubError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '=');
    let reason = if name.is_empty() || name.len() > LONGEST_REVISION {
        "it must have 1 to 255 characters"
    } else if name.starts_with('.') {
        "it starts with a dot"
    } else if !name.chars().all(allowed) {
        "only ASCII letters, digits and . _ - + = are allowed"
    } else {
        return Ok(());
    };
    Err(HubError::Name { kind: "file name", text: name.into(), reason })
}

/// The rules of the hub, as `huggingface_hub` checks them.
fn fault_of_name(name: &str) -> Option<&'static str> {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST_NAME {
        Some("owner and name must have 1 to 96 characters")
    } else if name.contains('/') {
        Some("there is more than one /")
    } else if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte)) {
        Some("only ASCII letters, digits and - _ . are allowed")
    } else if !is_word(bytes.first()) || !is_word(bytes.last()) {
        Some("owner and name must begin and end with a letter, a digit or _")
    } else if name.contains("--") || name.contains("..") {
        Some("-- and .. are not allowed")
    } else {
        None
    }
}

/// The rules of git for references, without the characters that need quoting somewhere.
fn fault_of_revision(revision: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+=#/".contains(&byte);
    if revision.is_empty() || revision.len() > LONGEST_REVISION {
        Some("it must have 1 to 255 characters")
    } else if !revision.bytes().all(allowed) {
        Some("only ASCII letters, digits and . _ - + = # / are allowed")
    } else if revision
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.') || part.strip_suffix(".lock").is_some())
    {
        Some("no part between slashes may be empty, start with a dot or end in .lock")
    } else if revision.contains("..") {
        Some(".. is not allowed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn ids_are_taken_apart() {
        let id = RepoId::parse("timm/vit_base_patch16_224.augreg_in21k").unwrap();
        assert_eq!((id.repo().as_str(), id.revision()), ("timm/vit_base_patch16_224.augreg_in21k", "main"));
        let id = RepoId::parse("openai/clip-vit-large-patch14@refs/pr/1").unwrap();
        assert_eq!((id.folder_name().as_str(), id.revision()), ("models--openai--clip-vit-large-patch14", "refs/pr/1"));
        assert_eq!(id.to_string(), "openai/clip-vit-large-patch14@refs/pr/1");
    }

    #[test]
    fn malformed_ids_and_revisions_are_refused() {
        for text in [
            "", "name", "/name", "owner/", "a/b/c", "a--b/c", "a/b..c", "a/.b", "a/b-", "a/b.git", "a/b c", "a/ü",
            "../b", "a/..", "a\\b/c", "a/b@", "a/b@x..y", "a/b@/x", "a/b@x//y", "a/b@x y", "a/b@.x", "a/b@x.lock",
            "a/b@x@y",
        ] {
            let error = RepoId::parse(text).unwrap_err();
            assert!(matches!(error, HubError::Name { .. }), "{text}: {error}");
            assert_eq!(error.exit_code() as u8, 2);
        }
        assert!(RepoId::parse(&format!("a/{}", "b".repeat(97))).is_err());
    }

    #[test]
    fn paths_do_not_have_the_form_of_ids() {
        for text in ["./a/b", "./a", "../a", "~/a", "/a", "a", "a/b/c", "builtin:vit-mini", "builtin:a/b", "C:\\a"] {
            assert!(!RepoId::has_form(text), "{text}");
        }
        for text in ["a/b", "a/b@refs/pr/1", "a/b c"] {
            assert!(RepoId::has_form(text), "{text}");
        }
    }

    #[test]
    fn names_of_shards_are_plain() {
        assert!(check_file_name("model-00001-of-00002.safetensors").is_ok());
        for name in ["", "..", ".x", "a/b", "../a", "/etc/passwd", "C:a", "a\\b", "a\nb", "a\0"] {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
    }

    fn stays_inside(path: &str) -> bool {
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_inside_its_folder(text in "[a-z0-9./@_~\\\\: -]{0,24}", any in ".{0,24}") {
            for text in [text, any] {
                if let Ok(id) = RepoId::parse(&text) {
                    prop_assert_eq!(RepoId::parse(&id.to_string()).unwrap(), id.clone());
                    prop_assert!(stays_inside(&id.folder_name()) && !id.folder_name().contains('/'));
                    prop_assert!(stays_inside(id.revision()));
                }
                if check_file_name(&text).is_ok() {
                    prop_assert!(stays_inside(&text) && !text.contains('/'));
                }
            }
        }

        #[test]
        fn well_formed_ids_are_accepted(owner in "[a-zA-Z0-9_]{1,20}", name in "[a-z0-9]([._-]?[a-z0-9]){0,20}") {
            prop_assume!(name.strip_suffix(".git").is_none());
            let text = format!("{owner}/{name}");
            prop_assert!(RepoId::has_form(&text));
            prop_assert_eq!(RepoId::parse(&text).unwrap().repo(), text);
        }
    }
}
