//! How every picture looks: one font, one palette, one set of sizes.

use std::sync::OnceLock;

use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontFamily, FontStyle, FontTransform, IntoFont, RGBColor, TextStyle, register_font as register,
};

use super::fonts;

/// Background.
pub(in crate::report) const PAPER: RGBColor = RGBColor(255, 255, 255);
/// Text and axes.
pub(in crate::report) const INK: RGBColor = RGBColor(38, 38, 38);
/// Secondary text and marks.
pub(in crate::report) const GREY: RGBColor = RGBColor(115, 115, 115);
/// Grid lines.
pub(in crate::report) const FAINT: RGBColor = RGBColor(225, 225, 225);
/// First series: the blue of Okabe and Ito (2008), distinct from the next for every kind of colour vision.
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
/// Second series: their vermilion.
pub(super) const VERMILION: RGBColor = RGBColor(213, 94, 0);

/// Height of the title's text, in pixels; pictures are drawn at twice the size they are read at.
pub(super) const TITLE: f64 = 34.0;
/// Height of axis names and legends.
pub(super) const LABEL: f64 = 28.0;
/// Height of tick labels.
pub(super) const TICK: f64 = 24.0;

/// Makes the built-in font known to the drawing library, once.
pub(super) fn register_font() -> Result<(), String> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let registered =
        *REGISTERED.get_or_init(|| register(fonts::BUILT_IN, FontStyle::Normal, fonts::BUILT_IN_FILE).is_ok());
    if registered { Ok(()) } else { Err("the built-in font is damaged".into()) }
}

/// Text of a height in pixels, anchored at a point of its own box.
pub(super) fn text(size: f64, color: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    let font = (FontFamily::Name(fonts::BUILT_IN), size).into_font();
    TextStyle { font, color: color.to_backend_color(), pos: Pos::new(horizontal, vertical) }
}

/// The same, turned to read upwards.
pub(super) fn upward(size: f64, color: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    text(size, color, horizontal, vertical).transform(FontTransform::Rotate270)
}

/// The width of `content` in pixels.
pub(super) fn width(content: &str, size: f64) -> i32 {
    // Without the font nothing is drawn at all, so its absence is reported there.
    let of = |family, text: &str| {
        (FontFamily::Name(family), size).into_font().box_size(text).map_or(0, |(width, _)| width as i32)
    };
    let content = &*fonts::seen(content);
    if fonts::is_plain(content) {
        return of(fonts::BUILT_IN, content);
    }
    fonts::pieces(content).iter().map(|(family, text)| of(family, text)).sum()
}

/// `content`, cut and closed with an ellipsis where it is wider than `most` pixels.
pub(super) fn fit(content: &str, size: f64, most: i32) -> String {
    if width(content, size) <= most {
        return content.to_owned();
    }
    let mut kept: Vec<char> = content.chars().collect();
    while kept.pop().is_some() {
        let short = format!("{}…", kept.iter().collect::<String>().trim_end());
        if width(&short, size) <= most {
            return short;
        }
    }
    String::new()
}
