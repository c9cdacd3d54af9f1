//! A contact sheet: rows of small pictures with captions, in one or more columns, as one PNG.
//!
//! Text is drawn as in every other picture; the thumbnails are laid over it pixel by pixel, so that nothing is
//! smoothed away that a person should see.

use super::prelude::*;
use crate::pixels::reduced;
use image::{RgbImage, imageops};

const MARGIN: i32 = 24;
/// Between thumbnails, and between rows.
const GAP: i32 = 10;
/// Heights of text: a sheet is looked at in its own size.
const TITLE: f64 = 22.0;
const HEADING: f64 = 17.0;
const CAPTION: f64 = 13.0;
/// Largest whole factor by which a small picture is enlarged.
const MOST_ENLARGED: u32 = 8;

/// Rows of thumbnails.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// Stands at the top.
    pub title: String,
    /// Width and height of a thumbnail's place in pixels.
    pub side: u32,
    /// Rows beside each other; 0 counts as 1.
    pub columns: usize,
    /// From left to right in their columns, then from top to bottom.
    pub rows: Vec<SheetRow>,
}

/// Pictures that belong together.
#[derive(Debug, Clone, Default)]
pub struct SheetRow {
    /// Stands above them.
    pub heading: String,
    /// From left to right.
    pub thumbnails: Vec<Thumbnail>,
}

/// A picture with what it is.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    /// Any size: reduced to its place, or enlarged by a whole factor.
    pub image: RgbImage,
    /// Stands below it.
    pub caption: String,
}

impl Sheet {
    /// Rows side by side.
    fn columns(&self) -> usize {
        self.columns.clamp(1, self.rows.len().max(1))
    }

    fn row_width(&self) -> i32 {
        let most = self.rows.iter().map(|row| row.thumbnails.len()).max().unwrap_or(0) as i32;
        most * (self.side as i32 + GAP) - GAP
    }

    /// Upper left corner of a thumbnail's place.
    fn place(&self, row: usize, thumbnail: usize) -> (i32, i32) {
        let side = self.side as i32;
        let (line, column) = ((row / self.columns()) as i32, (row % self.columns()) as i32);
        let row_height = HEADING as i32 + GAP + side + GAP / 2 + CAPTION as i32 + 2 * GAP;
        let above = MARGIN + TITLE as i32 + 2 * GAP + line * row_height;
        let left = MARGIN + column * (self.row_width() + MARGIN);
        (left + thumbnail as i32 * (side + GAP), above + HEADING as i32 + GAP)
    }

    /// Lays the pictures over a drawn sheet.
    pub(super) fn paste(&self, sheet: &mut RgbImage) {
        for (row, SheetRow { thumbnails, .. }) in self.rows.iter().enumerate() {
            for (column, thumbnail) in thumbnails.iter().enumerate() {
                let small = fitted(&thumbnail.image, self.side);
                let (x, y) = self.place(row, column);
                let centred = |start: i32, length: u32| i64::from(start) + i64::from(self.side - length) / 2;
                imageops::replace(sheet, &small, centred(x, small.width()), centred(y, small.height()));
            }
        }
    }
}

impl Picture for Sheet {
    fn size(&self) -> (u32, u32) {
        let columns = self.columns();
        let (_, bottom) = self.place(self.rows.len().div_ceil(columns) * columns, 0);
        let width = MARGIN + columns as i32 * (self.row_width() + MARGIN);
        (width.max(1) as u32, (bottom - HEADING as i32 - 2 * GAP + MARGIN) as u32)
    }

    fn problem(&self) -> Option<String> {
        let empty = self.side == 0 || self.rows.iter().all(|row| row.thumbnails.is_empty());
        empty.then(|| "there is nothing to show".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let side = self.side as i32;
        let room = self.size().0 as i32 - 2 * MARGIN;
        let line = |text: &str, size: f64, room: i32| style::fit(&printable(text), size, room);
        let title = style::text(TITLE, INK, HPos::Left, VPos::Top);
        area.draw(&Text::new(line(&self.title, TITLE, room), (MARGIN, MARGIN), title))?;
        let heading = style::text(HEADING, INK, HPos::Left, VPos::Top);
        let caption = style::text(CAPTION, GREY, HPos::Left, VPos::Top);
        for (row, SheetRow { heading: words, thumbnails }) in self.rows.iter().enumerate() {
            let (x, y) = self.place(row, 0);
            let above = (x, y - GAP - HEADING as i32);
            area.draw(&Text::new(line(words, HEADING, self.row_width()), above, heading.clone()))?;
            for (column, thumbnail) in thumbnails.iter().enumerate() {
                let (x, y) = self.place(row, column);
                let below = (x, y + side + GAP / 2);
                area.draw(&Text::new(line(&thumbnail.caption, CAPTION, side), below, caption.clone()))?;
            }
        }
        Ok(())
    }
}

/// The picture within a square of `side` pixels, its proportions kept.
fn fitted(image: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let longer = width.max(height).max(1);
    if longer > side {
        return reduced(image, side);
    }
    let factor = (side / longer).clamp(1, MOST_ENLARGED);
    imageops::resize(image, width * factor, height * factor, imageops::FilterType::Nearest)
}
