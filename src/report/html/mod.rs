//! Self-contained pages: no network, no server, no other file.

mod compare;
mod heat;
mod markup;
mod run;
mod scatter;

pub use compare::{ComparisonPage, save_comparison_page};
pub use heat::{frame, heat_map};
pub use run::{MapKind, Mistake, Mistakes, Neighbor, RunPage, save_run_page};
pub use scatter::save_scatter_page;

use crate::error::Result;
use crate::system::files::write_atomic;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use markup::Html;
use plotters::style::RGBColor;
use serde::Serialize;
use std::path::Path;

/// The parts of a page. Everything a user has named is escaped or travels in `data`.
struct Page<'a> {
    title: &'a str,
    subtitle: &'a str,
    /// Beyond the style that all pages share.
    style: &'a str,
    /// Between the title and the end, as HTML.
    body: &'a str,
    /// JSON, as [`json`] makes it.
    data: &'a str,
    /// Run at the end; finds the data in the element `data`.
    script: &'static str,
}

impl Page<'_> {
    fn save(&self, path: &Path) -> Result<()> {
        write_atomic(path, self.render().as_bytes())
    }

    fn render(&self) -> String {
        // The policy makes the promise binding: whatever the data holds, the page loads nothing.
        format!(
            r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{base}{style}</style>
</head>
<body>
<header>
<h1 class="name">{title}</h1>
<p class="name">{subtitle}</p>
</header>
<main>
{body}</main>
<script type="application/json" id="data">{data}</script>
<script>
{script}</script>
</body>
</html>
"#,
            title = Html::text(self.title),
            subtitle = Html::text(self.subtitle),
            base = include_str!("base.css"),
            style = self.style,
            body = self.body,
            data = self.data,
            script = self.script,
        )
    }
}

/// Text that HTML shows as it is, within an element or a quoted attribute.
fn escaped(text: &str) -> String {
    // The ampersand first: the others bring more of them.
    let pairs = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")];
    pairs.into_iter().fold(text.to_owned(), |text, (c, safe)| text.replace(c, safe))
}

/// JSON that stays within its script element: nothing in it can end the element or begin a comment, and it is
/// JavaScript too.
fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string(value)?;
    Ok(plain.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"))
}

/// The bytes of an image file as the address of an image; none if they are not those of an image.
fn data_uri(image: &[u8]) -> Option<String> {
    let format = image::guess_format(image).ok()?;
    Some(format!("data:{};base64,{}", format.to_mime_type(), STANDARD.encode(image)))
}

/// A colour as HTML writes it.
fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::thumbnail;

    #[test]
    fn only_images_become_addresses() {
        let mut png = Vec::new();
        let image = image::RgbImage::new(2, 2);
        image.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
        assert!(data_uri(&png).unwrap().starts_with("data:image/png;base64,iVBORw0KGgo"));
        assert_eq!(data_uri(b"<svg onload=alert(1)>"), None);
    }

    #[test]
    fn hostile_text_stays_text() {
        let hostile = "</script><b a='\"'>&\u{2028}\u{2029}<!--";
        let html = escaped(hostile);
        assert_eq!(html, "&lt;/script&gt;&lt;b a=&#39;&quot;&#39;&gt;&amp;\u{2028}\u{2029}&lt;!--");
        let data = json(&hostile).unwrap();
        assert!(!data.contains(['<', '\u{2028}', '\u{2029}']), "{data}");
        assert_eq!(serde_json::from_str::<String>(&data).unwrap(), hostile);
        let page = Page { title: hostile, subtitle: hostile, style: "", body: "", data: &data, script: "" }.render();
        assert_eq!(page.matches("</script>").count(), 2);
        assert_eq!(page.matches("<b").count(), 1, "only <body>");
    }

    #[test]
    fn three_hundred_fit_in_a_page() {
        // The textile images of the quick start, the roughest texture at hand.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/textile");
        let mut files: Vec<_> = walkdir::WalkDir::new(folder).into_iter().flatten().collect();
        files.retain(|file| file.path().extension().is_some_and(|e| e == "png" || e == "jpg" || e == "jpeg"));
        let sizes = files.iter().step_by(20).map(|file| {
            let image = image::open(file.path()).unwrap().into_rgb8();
            thumbnail(&image, 96).unwrap().len()
        });
        let sizes: Vec<usize> = sizes.collect();
        assert!(sizes.len() >= 10);
        let page = 300 * sizes.iter().sum::<usize>() / sizes.len() * 4 / 3;
        assert!(page < 3_000_000, "{page} bytes");
    }
}
