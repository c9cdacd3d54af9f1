//! The resolved settings of `[report]`.

use serde::Serialize;

/// `[report]`: the page that a run leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReportSettings {
    /// Whether it is written.
    pub html: bool,
    /// The wrong answers that it shows, at the most.
    pub mistakes: usize,
}
