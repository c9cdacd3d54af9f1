//! A comparison as one page: the table, the picture, what follows from them.

use super::Page;
use super::markup::{Html, TableCell, note, plot, section, table};
use crate::error::Result;
use crate::report::Comparison;
use std::path::Path;

/// What surrounds the table, beyond the style that all pages share.
const STYLE: &str = "table { font-variant-numeric: tabular-nums; }\n.plot { margin: 0; background: #ffffff; max-width: 60rem; }\n\
                     .plot svg { width: 100%; height: auto; }\n.note { color: var(--grey); font-size: 0.9rem; }\n";

/// Writes the page; `picture` is the scores against time, as SVG.
pub(in crate::report) fn save_comparison_page(path: &Path, comparison: &Comparison, picture: &str) -> Result<()> {
    let (header, rows) = comparison.cells();
    let header: Vec<Html> = header.iter().map(|name| Html::text(name)).collect();
    let cells = |row: Vec<String>| -> Vec<TableCell> {
        let named = |(column, text): (usize, String)| if column == 0 { Html::name(&text) } else { Html::text(&text) };
        row.into_iter().enumerate().map(|cell| TableCell::from(named(cell))).collect()
    };
    let conclusion = Html::markup(format!("<p>{}</p>\n", Html::text(&comparison.conclusion(""))));
    let rows = table("numbers", &header, rows.into_iter().map(cells).collect());
    let notes = comparison.notes().into_iter().chain(comparison.missing_lines().into_iter().flatten());
    let label = format!("{} against time", comparison.metric.in_words());
    let picture = section("picture", "Score against time", &plot(&label, picture));
    let body: Html = [conclusion, rows].into_iter().chain(notes.map(|text| note(&text))).chain([picture]).collect();
    let (title, subtitle, body) = (&comparison.name, &comparison.subtitle(), &body.to_string());
    Page { title, subtitle, style: STYLE, body, data: "null", script: "" }.save(path)
}
