//! Bitmaps as clean as the SVG: drawn at twice the size and averaged, with text where the SVG has it.
//!
//! The bitmap backend rounds the corners of lines and the places of letters to whole pixels, which shows in thin
//! lines and words. It also sets text higher than the SVG backend does for the same anchor.

use plotters::style::text_anchor::{HPos, Pos};
use plotters::style::{FontDesc, FontFamily, TextStyle};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};

use super::fonts;
use crate::bitmap::{Bitmap, BitmapError, Stroke};
use crate::pixels::halved;

/// Pixels drawn for each pixel of the picture, in each direction.
const SCALE: u32 = 2;

/// How far the bitmap's baseline lies above the SVG's, as a share of the text's height. The bitmap has the baseline
/// at 0.5 of a box 1/1.24 high, the SVG at 0.22 below the middle: 0.22 − (0.5 − 0.5/1.24).
const BASELINE: f64 = 0.123;

/// The RGB pixels of a picture of `size`, row by row, drawn by `draw`.
pub(super) fn pixels(size: (u32, u32), draw: impl FnOnce(Smooth<'_>) -> Result<(), String>) -> Result<Vec<u8>, String> {
    let large = (size.0 * SCALE, size.1 * SCALE);
    let mut buffer = vec![0; large.0 as usize * large.1 as usize * 3];
    draw(Smooth(Bitmap::new(&mut buffer, large)))?;
    Ok(halved(&buffer, size))
}

/// A bitmap backend that takes the picture's coordinates and sizes and draws larger.
pub(super) struct Smooth<'a>(Bitmap<'a>);

type DrawnBitmap<'a> = Result<(), DrawingErrorKind<BitmapError<'a>>>;

/// A style with a thicker line.
fn thick(style: &impl BackendStyle) -> Stroke {
    Stroke { color: style.color(), width: style.stroke_width() * SCALE }
}

fn enlarged((x, y): BackendCoord) -> BackendCoord {
    (x * SCALE as i32, y * SCALE as i32)
}

impl<'a> DrawingBackend for Smooth<'a> {
    type ErrorType = BitmapError<'a>;

    fn get_size(&self) -> (u32, u32) {
        let (width, height) = self.0.size();
        (width / SCALE, height / SCALE)
    }

    fn ensure_prepared(&mut self) -> DrawnBitmap<'a> {
        Ok(())
    }

    fn present(&mut self) -> DrawnBitmap<'a> {
        Ok(())
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> DrawnBitmap<'a> {
        self.draw_rect(point, (point.0 + 1, point.1 + 1), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> DrawnBitmap<'a> {
        // A path, because a line thicker than a pixel is one of these anyway.
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        lower_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> DrawnBitmap<'a> {
        self.0.rect([upper_left, lower_right].map(enlarged), thick(style), fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> DrawnBitmap<'a> {
        self.0.path(path.into_iter().map(enlarged).collect(), thick(style))
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> DrawnBitmap<'a> {
        self.0.circle(enlarged(center), radius * SCALE, thick(style), fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> DrawnBitmap<'a> {
        self.0.polygon(path.into_iter().map(enlarged).collect(), thick(style))
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, place: BackendCoord) -> DrawnBitmap<'a> {
        let size = style.size() * f64::from(SCALE);
        let (x, y) = enlarged(place);
        let text = &*fonts::seen(text);
        let down = (BASELINE * size).round() as i32;
        let mut draw = |family, text: &str, pos, along: i32| {
            let font = FontDesc::new(family, size, style.style()).transform(style.transform());
            let large = TextStyle { font, color: style.color(), pos };
            let (right, down) = style.transform().transform(along, down);
            self.0.text(text, &large, (x + right, y + down))
        };
        if fonts::is_plain(text) {
            return draw(style.family(), text, style.anchor(), 0);
        }
        let pieces = fonts::pieces(text);
        let width = |(family, text): &(&'static str, String)| {
            let font = FontDesc::new(FontFamily::Name(family), size, style.style());
            font.box_size(text).map_or(0, |(width, _)| width as i32)
        };
        let widths: Vec<i32> = pieces.iter().map(width).collect();
        let all: i32 = widths.iter().sum();
        let mut along = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -all / 2,
            HPos::Right => -all,
        };
        for ((family, text), width) in pieces.iter().zip(widths) {
            let pos = Pos { h_pos: HPos::Left, ..style.anchor() };
            draw(FontFamily::Name(family), text, pos, along)?;
            along += width;
        }
        Ok(())
    }
}
