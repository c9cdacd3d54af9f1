//! A comparison as one page: the table, the picture, what follows from them.

use super::Page;
use super::markup::{Html, TableCell, note, plot, section, table};
use crate::error::Result;
use std::path::Path;

/// What surrounds the table, beyond the style that all pages share.
const STYLE: &str = "table { font-variant-numeric: tabular-nums; }\n.plot { margin: 0; background: #ffffff; max-width: 60rem; }\n\
                     .plot svg { width: 100%; height: auto; }\n.note { color: var(--grey); font-size: 0.9rem; }\n";

/// The content of the page.
pub struct ComparisonPage<'a> {
    /// The title of the comparison.
    pub title: String,
    /// What was compared on.
    pub subtitle: String,
    /// The columns.
    pub header: Vec<String>,
    /// The rows; the first column names them.
    pub rows: Vec<Vec<String>>,
    /// What follows, in a sentence.
    pub conclusion: String,
    /// What the columns are.
    pub notes: Vec<String>,
    /// What strategies are judged by, in words.
    pub measure: &'static str,
    /// The scores against time, as SVG.
    pub picture: &'a str,
}

/// Writes the page.
///
/// # Errors
/// When it cannot be written.
pub fn save_comparison_page(path: &Path, content: ComparisonPage<'_>) -> Result<()> {
    let header: Vec<Html> = content.header.iter().map(|name| Html::text(name)).collect();
    let cells = |row: Vec<String>| -> Vec<TableCell> {
        let named = |(column, text): (usize, String)| if column == 0 { Html::name(&text) } else { Html::text(&text) };
        row.into_iter().enumerate().map(|cell| TableCell::from(named(cell))).collect()
    };
    let conclusion = Html::markup(format!("<p>{}</p>\n", Html::text(&content.conclusion)));
    let rows = table("numbers", &header, content.rows.into_iter().map(cells).collect());
    let body: Html = [conclusion, rows]
        .into_iter()
        .chain(content.notes.iter().map(|text| note(text)))
        .chain([section(
            "picture",
            "Score against time",
            &plot(&format!("{} against time", content.measure), content.picture),
        )])
        .collect();
    let (title, subtitle, body) = (&content.title, &content.subtitle, &body.to_string());
    Page { title, subtitle, style: STYLE, body, data: "null", script: "" }.save(path)
}
