//! How every picture looks: one font, one palette, one set of sizes.

use super::{Canvas, Drawn, fonts};
use crate::system::shown::printable;
use plotters::element::{Circle, Text};
use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontFamily, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle, register_font as register,
};
use std::sync::OnceLock;

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

/// Draws the title into the header of a picture, in the middle.
pub(super) fn draw_title<B: DrawingBackend>(header: &Canvas<B>, title: &str) -> Drawn<B> {
    let width = header.dim_in_pixel().0 as i32;
    header.draw(&Text::new(fit(&printable(title), TITLE, width - 80), (width / 2, 44), centred(TITLE, INK)))
}

/// A disc with this radius in pixels.
pub(super) fn disc<C>(at: C, radius: i32, color: RGBColor) -> Circle<C, i32> {
    Circle::new(at, radius, ShapeStyle::from(color).filled())
}

/// The smallest and the largest of some values; reversed and infinite when there are none.
pub(super) fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Text of a height in pixels, anchored at a point of its own box.
pub(super) fn text(size: f64, color: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    let font = (FontFamily::Name(fonts::BUILT_IN), size).into_font();
    TextStyle { font, color: color.to_backend_color(), pos: Pos::new(horizontal, vertical) }
}

/// Text whose middle is at its place.
pub(super) fn centred(size: f64, color: RGBColor) -> TextStyle<'static> {
    text(size, color, HPos::Center, VPos::Center)
}

/// Text that begins at its place.
pub(super) fn left(size: f64, color: RGBColor) -> TextStyle<'static> {
    text(size, color, HPos::Left, VPos::Center)
}

/// Text that ends at its place.
pub(super) fn right(size: f64, color: RGBColor) -> TextStyle<'static> {
    text(size, color, HPos::Right, VPos::Center)
}

/// The same as a text, turned to read upwards.
pub(super) fn upward(text: &TextStyle<'static>) -> TextStyle<'static> {
    text.transform(FontTransform::Rotate270)
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
