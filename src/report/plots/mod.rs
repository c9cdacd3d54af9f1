//! Pictures of a run, each drawn once and saved as PNG and as SVG.

mod c_path;
mod confusion;
mod curves;
mod fonts;
mod labels;
mod lines;
mod lr_finder;
pub(in crate::report) mod palette;
mod reliability;
mod robustness;
mod scatter;
mod separation;
mod sheet;
mod smooth;
pub(in crate::report) mod style;
mod tradeoff;
mod wise_ft;

pub use c_path::SelectionPlot;
pub(in crate::report) use c_path::selection_svg;
pub use confusion::ConfusionPlot;
pub use curves::Curves;
pub(in crate::report) use curves::curve_svg;
pub use fonts::missing_letters;
pub(in crate::report) use lines::Measure;
pub use reliability::ReliabilityPlot;
pub(in crate::report) use reliability::reliability_svg;
pub(in crate::report) use robustness::robustness_svg;
pub use scatter::{Scatter, ScatterPoint};
pub(in crate::report) use scatter::{drawing_order, opacity, radius};
pub(in crate::report) use separation::separation_svgs;
pub use sheet::{Sheet, SheetRow, Thumbnail};
pub use tradeoff::{Tradeoff, TradeoffPoint};

use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::prelude::{DrawingBackend, SVGBackend};

use crate::error::{Error, Result};
use crate::pixels::color_spread;
use crate::system::files::{create_folder, write_atomic};

/// Draws a contact sheet to the PNG file `path`.
///
/// # Errors
/// [`Error::Plot`] when there is nothing to show or the drawing fails, [`Error::Io`] when the file cannot be written.
pub fn save_sheet(path: &Path, sheet: &Sheet) -> Result<()> {
    let drawn = sheet.problem().map_or_else(|| pixels(sheet), Err);
    let mut drawn = drawn.map_err(Error::plot(path))?;
    sheet.paste(&mut drawn);
    create_folder(path.parent().unwrap_or(Path::new(".")))?;
    write_atomic(path, &encoded(&drawn).map_err(Error::plot(path))?)
}

/// What drawing on backend `B` returns.
pub type Drawn<B, T = ()> = std::result::Result<T, DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// What is drawn on.
pub type Canvas<B> = DrawingArea<B, Shift>;

/// What all pictures are drawn with.
mod prelude {
    pub(super) use super::style::{self, BLUE, FAINT, GREY, INK, LABEL, PAPER, TICK, TITLE, VERMILION};
    pub(super) use super::{Canvas, Drawn, Picture, Titled, panel_svg};
    pub(super) use crate::system::shown::printable;
    pub(super) use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
    pub(super) use plotters::prelude::DrawingBackend;
    pub(super) use plotters::series::{DashedLineSeries, LineSeries};
    pub(super) use plotters::style::text_anchor::{HPos, VPos};
    pub(super) use plotters::style::{Color, RGBColor, ShapeStyle};
    pub(super) use std::ops::Range;
}

/// A picture that any backend can draw.
pub trait Picture {
    /// Width and height in pixels. The font is registered: names can be measured.
    fn size(&self) -> (u32, u32);

    /// Why it cannot be drawn, if so.
    fn problem(&self) -> Option<String> {
        None
    }

    /// Draws on a white area of that size.
    ///
    /// # Errors
    /// When the backend fails.
    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B>;
}

/// Data with what stands above its picture.
pub struct Titled<'a, T> {
    /// Above the picture.
    pub title: &'a str,
    /// What is drawn.
    pub of: &'a T,
}

/// Draws a picture to `stem`.png and `stem`.svg.
///
/// # Errors
/// [`Error::Plot`] when there is nothing to show, a number has no place or the drawing fails, [`Error::Io`] when a file
/// cannot be written.
pub fn save(picture: &impl Picture, stem: &Path) -> Result<()> {
    picture.problem().map_or_else(style::register_font, Err).map_err(Error::plot(stem))?;
    let with_extension = |extension: &str| {
        // Not `with_extension`, which would cut "run-0.5" down to "run-0".
        let mut path = stem.as_os_str().to_owned();
        path.push(extension);
        std::path::PathBuf::from(path)
    };
    create_folder(stem.parent().unwrap_or(Path::new(".")))?;
    let png = with_extension(".png");
    let bytes = pixels(picture).and_then(|pixels| encoded(&pixels)).map_err(Error::plot(&png))?;
    write_atomic(&png, &bytes)?;
    let svg = with_extension(".svg");
    let text = panel_svg(picture.size(), |area| picture.draw(area)).map_err(Error::plot(&svg))?;
    write_atomic(&svg, text.as_bytes())
}

fn pixels(picture: &impl Picture) -> Result<RgbImage, String> {
    let (width, height) = picture.size();
    let pixels = smooth::pixels((width, height), |backend| draw_on(backend, |area| picture.draw(area)))?;
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| "its size changed while it was drawn".into())
}

/// The PNG file of an image; a grey one takes one channel, which makes it a good third smaller. Of six drawings and two
/// sheets of photographs in docs, the lightest compression, without filters, takes 0.13 to 0.22 of the time of the usual
/// one; drawings become 28 to 70 % larger, photographs 2 to 3 %.
fn encoded(image: &RgbImage) -> Result<Vec<u8>, String> {
    let mut png = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Level(1), FilterType::NoFilter);
    let (width, height) = image.dimensions();
    let written = if color_spread(image) == 0 {
        let levels: Vec<u8> = image.pixels().map(|pixel| pixel.0[0]).collect();
        encoder.write_image(&levels, width, height, ExtendedColorType::L8)
    } else {
        encoder.write_image(image, width, height, ExtendedColorType::Rgb8)
    };
    written.map_err(|error| error.to_string())?;
    Ok(png)
}

/// A part of a picture by itself as SVG text, for narrow places.
fn panel_svg(
    size: (u32, u32),
    draw: impl FnOnce(&Canvas<SVGBackend<'_>>) -> Drawn<SVGBackend<'static>>,
) -> Result<String, String> {
    let mut svg = String::new();
    draw_on(SVGBackend::with_string(&mut svg, size), draw)?;
    Ok(svg)
}

fn draw_on<B: DrawingBackend>(backend: B, draw: impl FnOnce(&Canvas<B>) -> Drawn<B>) -> Result<(), String> {
    style::register_font()?;
    let area = backend.into_drawing_area();
    let drawn = area.fill(&style::PAPER).and_then(|()| draw(&area)).and_then(|()| area.present());
    drawn.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
