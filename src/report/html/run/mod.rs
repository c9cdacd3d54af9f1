//! The report of a run as one page: results, how they came about, and the data behind them.

mod decisions;
mod findings;
mod mistakes;
mod origin;
mod scores;
mod style;

pub use mistakes::{MapKind, Mistake, Mistakes, Neighbor};

use std::path::Path;

use super::Page;
use super::markup::{Html, section};
use crate::config::Settings;
use crate::error::Result;
use crate::metrics::{Evaluation, Robustness, Separation};
use crate::report::RunRecord;
use crate::train::progress::EpochRecord;

/// The content of the page. What is absent has no section.
#[derive(Debug, Clone)]
pub struct RunPage {
    /// `run.name`
    pub name: String,
    /// `run.json`
    pub record: RunRecord,
    /// `config.toml`
    pub config: String,
    /// What `config` means.
    pub settings: Settings,
    /// `metrics.jsonl`
    pub epochs: Vec<EpochRecord>,
    /// The scored splits, first the one that the page is about.
    pub evaluations: Vec<Evaluation>,
    /// What splits scored later, with doubts.
    pub again: Vec<Evaluation>,
    /// The splits that have images, with the number of each class.
    pub counts: Vec<(String, Vec<usize>)>,
    /// Files that were left out.
    pub skipped: usize,
    /// What the first of the evaluations got wrong.
    pub mistakes: Option<Mistakes>,
    /// The scores of good and defective parts behind the first of the evaluations.
    pub separation: Option<Separation>,
    /// Scores with flaws on the images, by split.
    pub robustness: Vec<Robustness>,
}

/// Writes the page.
///
/// # Errors
/// An I/O error when it cannot be written.
pub fn save_run_page(path: &Path, page: &RunPage) -> Result<()> {
    let subtitle = &format!("{}, {}", page.record.strategy, page.record.backbone.name);
    let (style, body) = (&style::sheet(), &page.body().to_string());
    Page { title: &page.name, subtitle, style, body, data: "null", script: "" }.save(path)
}

impl RunPage {
    fn body(&self) -> Html {
        let sections = [
            ("curves", "Training", findings::curves(self)),
            ("selection", "Choice of the classifier", findings::selection(self)),
            ("confusion", "Confusion", scores::confusion(self)),
            ("classes", "Classes", scores::classes(self)),
            ("decisions", "Inspection", decisions::operating_points(self)),
            ("reliability", "Reliability", decisions::reliability(self)),
            ("mistakes", "Worst mistakes", mistakes::gallery(self)),
            ("robustness", "Robustness", findings::robustness(self)),
            ("data", "Data", origin::data(self)),
            ("settings", "Settings", origin::settings(self)),
            ("provenance", "Provenance", origin::provenance(self)),
        ];
        let links: String = sections
            .iter()
            .filter(|(_, _, body)| !body.is_empty())
            .map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>"))
            .collect();
        let navigation = Html::markup(format!("<nav aria-label=\"Sections\">{links}</nav>\n"));
        let sections = sections.iter().map(|(id, title, body)| section(id, title, body));
        [scores::headline(self), navigation].into_iter().chain(sections).collect()
    }

    /// The split that the page is about.
    fn main(&self) -> Option<&Evaluation> {
        self.evaluations.first()
    }
}
