//! Pieces of a page. What comes from outside enters through [`Html::text`] or [`Html::name`] and nowhere else.

use std::fmt::{self, Display, Formatter, Write};

use super::escaped;
use crate::system::shown::printable;

/// A piece of a page in which everything is escaped that has to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Html(String);

impl Display for Html {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Html {
    /// Text as it is, control characters visible.
    pub fn text(text: &str) -> Self {
        Self(escaped(&printable(text)))
    }

    /// What a user has named: it may break anywhere, and does not reorder the text around it.
    pub fn name(name: &str) -> Self {
        Self(format!(r#"<span class="name">{}</span>"#, Self::text(name)))
    }

    /// Markup put together from pieces that are safe already.
    pub fn markup(markup: impl Into<String>) -> Self {
        Self(markup.into())
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<I: IntoIterator<Item = Self>>(pieces: I) -> Self {
        let mut all = String::new();
        for piece in pieces {
            // Writing to a string cannot fail.
            let _ = writeln!(all, "{piece}");
        }
        Self(all)
    }
}

/// A section that a link to `#id` finds; nothing without a body.
pub(super) fn section(id: &str, title: &str, body: &Html) -> Html {
    if body.is_empty() {
        return Html::default();
    }
    Html(format!("<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n", Html::text(title)))
}

/// A paragraph in a smaller size.
pub(super) fn note(text: &str) -> Html {
    Html(format!("<p class=\"note\">{}</p>\n", Html::text(text)))
}

/// Names on the left, values on the right.
pub(super) fn facts(rows: &[(&str, Html)]) -> Html {
    let row = |(name, value): &(&str, Html)| Html(format!("<div><dt>{}</dt><dd>{value}</dd></div>", Html::text(name)));
    Html(format!("<dl class=\"facts\">\n{}</dl>\n", rows.iter().map(row).collect::<Html>()))
}

/// A cell of a table, its style as declarations of CSS custom properties.
pub(super) struct TableCell {
    content: Html,
    /// A share from 0 to 1, drawn as a bar or a shade.
    share: Option<f64>,
}

impl TableCell {
    /// With a share that the style shows beside the content.
    pub fn shaded(content: Html, share: f64) -> Self {
        Self { content, share: Some(share.clamp(0.0, 1.0)) }
    }
}

impl From<Html> for TableCell {
    fn from(content: Html) -> Self {
        Self { content, share: None }
    }
}

impl From<String> for TableCell {
    fn from(text: String) -> Self {
        Html::text(&text).into()
    }
}

/// Columns that a telephone shows beside each other.
const NARROW: usize = 4;

/// A table that scrolls by itself where it is too wide, and says so on a narrow screen. The first column names the rows.
pub(super) fn table(class: &str, header: &[Html], rows: Vec<Vec<TableCell>>) -> Html {
    let head: String = header.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let body: Html = rows.into_iter().map(row).collect();
    let wide = if header.len() > NARROW { "<p class=\"sideways\">This table scrolls sideways.</p>\n" } else { "" };
    Html(format!(
        "{wide}<div class=\"scrolls\" tabindex=\"0\"><table class=\"{class}\">\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{body}</tbody>\n</table></div>\n"
    ))
}

fn row(cells: Vec<TableCell>) -> Html {
    let cell = |(column, cell): (usize, TableCell)| match (column, cell.share) {
        (0, _) => format!("<th scope=\"row\">{}</th>", cell.content),
        (_, None) => format!("<td>{}</td>", cell.content),
        (_, Some(share)) => {
            let strong = if share > 0.5 { " class=\"strong\"" } else { "" };
            format!("<td{strong} style=\"--share:{share:.3}\">{}</td>", cell.content)
        }
    };
    Html(format!("<tr>{}</tr>", cells.into_iter().enumerate().map(cell).collect::<String>()))
}

/// A picture as SVG text, of our own making.
pub(super) fn plot(label: &str, svg: &str) -> Html {
    Html(format!("<figure class=\"plot\" role=\"img\" aria-label=\"{}\">{svg}</figure>\n", Html::text(label)))
}

/// The same, or why `what` is not there.
pub(super) fn drawn(what: &str, label: &str, svg: Result<String, String>) -> Html {
    svg.map_or_else(|reason| note(&format!("{what} cannot be drawn: {reason}")), |svg| plot(label, &svg))
}

/// A part that is folded at first.
pub(super) fn folded(summary: &str, body: &Html) -> Html {
    Html(format!("<details><summary>{}</summary>\n{body}</details>\n", Html::text(summary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_become_markup() {
        let hostile = "</td><script>\"'&\u{1b}";
        let cells = vec![vec![Html::name(hostile).into(), hostile.to_owned().into()]];
        let page = [
            section("x", hostile, &note(hostile)),
            facts(&[(hostile, Html::text(hostile))]),
            table("plain", &[Html::text(hostile)], cells),
            plot(hostile, "<svg></svg>"),
            folded(hostile, &Html::text(hostile)),
        ];
        let page = page.into_iter().collect::<Html>().to_string();
        assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
        assert_eq!(page.matches("</td>").count(), 1);
    }

    #[test]
    fn empty_sections_leave_no_heading() {
        assert!(section("x", "title", &Html::default()).is_empty());
    }

    #[test]
    fn shares_are_styles() {
        let cells = vec![vec![Html::text("a").into(), TableCell::shaded(Html::text("9"), 1.7)]];
        let text = table("plain", &[], cells).to_string();
        assert!(text.contains(r#"<td class="strong" style="--share:1.000">9</td>"#), "{text}");
    }
}
