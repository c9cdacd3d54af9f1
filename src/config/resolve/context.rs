//! What every section's resolution needs: reporting, relative paths, keys that exclude each other.

use crate::config::check::Findings;
use crate::config::document::Document;
use crate::config::paths::{self, Bases};
use crate::error::Place;
use std::path::{Path, PathBuf};

/// Resolves sections, collecting problems on the way.
pub struct Resolver<'a> {
    /// Where each value stands.
    pub document: &'a Document,
    /// Receives the problems.
    pub findings: &'a mut Findings,
    /// What paths are relative to.
    pub bases: &'a Bases,
    /// `run.name` when it is not given.
    pub name: String,
}

impl Resolver<'_> {
    /// Notes a problem of one value.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.add(self.document.place(key), key, message, hint);
    }

    /// Notes that `key` does not go with `others`, unless one of them was refused already: judging it by a default
    /// that stands in for a typo would only confuse.
    pub(super) fn conflict(&mut self, key: &str, others: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        if !self.any_broken(key, others) {
            self.problem(key, message, hint);
        }
    }

    /// Notes that `key` is missing, at the line of its section, with the same exception.
    pub(super) fn missing(&mut self, key: &str, others: &[&str], hint: &str) {
        if self.any_broken(key, others) {
            return;
        }
        let place = match self.document.place(key) {
            Place::Line(line) => Place::Line(line),
            Place::Absent | Place::Set(_) => Place::Absent,
        };
        self.findings.add(place, key, "is missing", hint);
    }

    /// Notes a range that ends before it begins.
    pub(super) fn ordered(&mut self, key: &str, [low, high]: [f64; 2]) {
        if low > high {
            self.problem(key, format!("[{low}, {high}] ends before it begins"), "expected [smallest, largest]");
        }
    }

    /// At most one of two keys that exclude each other. An override beats the other key of the file.
    pub(super) fn either<A, B>(
        &mut self,
        (first, a): (&str, Option<A>),
        (second, b): (&str, Option<B>),
    ) -> (Option<A>, Option<B>) {
        if a.is_none() || b.is_none() {
            (a, b)
        } else if self.supersedes(first, second) {
            (a, None)
        } else if self.supersedes(second, first) {
            (None, b)
        } else {
            self.problem(second, format!("excludes {first}, which is given too"), "leave one of them out");
            (a, None)
        }
    }

    /// Whether an override of `key` makes `other` of the file moot: sweeping `strategy.kind` from the command line
    /// must not trip over the keys of the kind in the file.
    pub(super) fn supersedes(&self, key: &str, other: &str) -> bool {
        self.document.is_overridden(key) && !self.document.is_overridden(other)
    }

    /// The folder that paths in `key` are relative to.
    pub(super) fn base(&self, key: &str) -> &Path {
        if self.document.is_overridden(key) { &self.bases.current } else { &self.bases.file }
    }

    /// The absolute form of the path in `key`.
    pub(super) fn path(&self, key: &str, path: &Path) -> PathBuf {
        paths::absolute(self.base(key), path)
    }

    fn any_broken(&self, key: &str, others: &[&str]) -> bool {
        self.findings.is_broken(key) || others.iter().any(|other| self.findings.is_broken(other))
    }
}
