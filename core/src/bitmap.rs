//! plotters' bitmap backend without its generics, so that drawing is compiled here and not where it is called.
#![allow(clippy::missing_errors_doc)] // they are plotters' own

use plotters::backend::BitMapBackend;
use plotters::style::TextStyle;
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, DrawingBackend, DrawingErrorKind};

/// An RGB picture that is drawn on.
pub struct Bitmap<'a>(BitMapBackend<'a>);

/// Why drawing failed.
pub type BitmapError<'a> = <BitMapBackend<'a> as DrawingBackend>::ErrorType;
type Drawn<'a> = Result<(), DrawingErrorKind<BitmapError<'a>>>;

/// How lines and borders are drawn.
#[derive(Clone, Copy)]
pub struct Stroke {
    /// Their colour, and that of a filled shape.
    pub color: BackendColor,
    /// Their width in pixels.
    pub width: u32,
}

impl BackendStyle for Stroke {
    fn color(&self) -> BackendColor {
        self.color
    }

    fn stroke_width(&self) -> u32 {
        self.width
    }
}

impl<'a> Bitmap<'a> {
    /// Draws on `pixels`, row by row, of a picture of that width and height.
    ///
    /// # Panics
    /// When there are fewer than three bytes a pixel.
    pub fn new(pixels: &'a mut [u8], size: (u32, u32)) -> Self {
        Self(BitMapBackend::with_buffer(pixels, size))
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        self.0.get_size()
    }

    /// Lines from point to point.
    pub fn path(&mut self, points: Vec<BackendCoord>, stroke: Stroke) -> Drawn<'a> {
        self.0.draw_path(points, &stroke)
    }

    /// A rectangle from its upper left to its lower right corner.
    pub fn rect(&mut self, corners: [BackendCoord; 2], stroke: Stroke, fill: bool) -> Drawn<'a> {
        self.0.draw_rect(corners[0], corners[1], &stroke, fill)
    }

    /// A circle.
    pub fn circle(&mut self, center: BackendCoord, radius: u32, stroke: Stroke, fill: bool) -> Drawn<'a> {
        self.0.draw_circle(center, radius, &stroke, fill)
    }

    /// A filled polygon.
    pub fn polygon(&mut self, corners: Vec<BackendCoord>, stroke: Stroke) -> Drawn<'a> {
        self.0.fill_polygon(corners, &stroke)
    }

    /// A text at its anchor.
    pub fn text(&mut self, text: &str, style: &TextStyle<'_>, place: BackendCoord) -> Drawn<'a> {
        self.0.draw_text(text, style, place)
    }
}
