//! An image cut into tiles at its own resolution. Where they lie is decided here and nowhere else.

use super::{Pipeline, Preprocess};
use crate::augment::Window;
use crate::config::TileSettings;
use crate::data::decode::{self, ImageError, MAX_TILES};
use crate::error::{Error, Result};
use crate::forms::is_default;
use crate::size::Size;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How images are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    /// Side of a tile in pixels of the image.
    pub side: u32,
    /// Pixels of the image that neighbouring tiles have in common at least.
    pub overlap: u32,
    /// Whether one more tile lies in the middle of every four.
    #[serde(default)]
    pub staggered: bool,
    /// Places of an image that are looked at once more, by shifted tiles.
    #[serde(default, skip_serializing_if = "is_default")]
    pub second_look: u32,
}

/// Along each side, a place is looked at once more by so many tiles, each shifted by this part of a patch.
const SHIFTS: u32 = 4;

/// A patch of a tile, in pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Its middle from the left.
    pub x: f64,
    /// Its middle from above.
    pub y: f64,
    /// Its side.
    pub side: f64,
}

/// An image, and the windows that show all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bag {
    /// The image.
    pub image: RgbImage,
    /// Its tiles in rows from the upper left; those in the middle of others come last.
    pub windows: Vec<Window>,
}

/// Images that are cut into tiles, and how these become pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Bags {
    images: Vec<Bag>,
    preprocess: Preprocess,
}

impl Bags {
    /// Decodes files.
    ///
    /// # Errors
    /// The first file that is not a usable image, or would have too many tiles, by its position.
    pub fn decode<'a>(
        pipeline: &Pipeline,
        tiles: &Tiles,
        files: impl Iterator<Item = &'a Path>,
    ) -> Result<Self, (usize, ImageError)> {
        let bag = |(at, file)| pipeline.bag(tiles, file).map_err(|error| (at, error));
        let images = files.enumerate().map(bag).collect::<Result<_, _>>()?;
        Ok(Self { images, preprocess: *pipeline.preprocess() })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Number of tiles of an image.
    pub fn tiles(&self, image: usize) -> usize {
        self.images[image].windows.len()
    }

    /// Tiles of the image that has the most.
    pub fn most(&self) -> usize {
        self.images.iter().map(|bag| bag.windows.len()).max().unwrap_or(0)
    }

    /// The pixels of some tiles of an image, one after another, each of shape (3, side, side).
    ///
    /// # Errors
    /// When a tile has no pixels.
    pub fn pixels(&self, image: usize, tiles: &[usize]) -> Result<Vec<f32>, ImageError> {
        self.preprocess.tiles_of(&self.images[image], tiles)
    }
}

impl Tiles {
    /// Fills in what the settings leave to the model, whose input has that size.
    ///
    /// # Errors
    /// A usage error when tiles overlap by more than three quarters, and when the input is not square, as tiles are.
    pub fn resolve(settings: &TileSettings, image_size: Size) -> Result<Self> {
        let image_size = image_size.side().ok_or_else(|| {
            Error::usage_hint(
                format!("preprocess.tiles cuts squares, and the input is not one: model.image_size = {image_size}"),
                format!("set model.image_size = {}, or preprocess.tiles = false", image_size.longer()),
            )
        })?;
        let scaled = |scale: f64| (image_size as f64 / scale).round().max(1.0) as usize;
        let side = settings.side.unwrap_or_else(|| scaled(settings.scale.unwrap_or(1.0)));
        let overlap = settings.overlap.unwrap_or(side / 8);
        let tiles = Self {
            side: side as u32,
            overlap: overlap as u32,
            staggered: settings.staggered,
            second_look: settings.second_look,
        };
        let most = tiles.most_overlap();
        if tiles.overlap > most {
            return Err(Error::usage_hint(
                format!("preprocess.tiles.overlap = {overlap} is more than three quarters of a tile of {side} pixels"),
                format!("give at most {most}, or larger tiles by preprocess.tiles.side"),
            ));
        }
        Ok(tiles)
    }

    /// The largest overlap: a pixel lies in up to sixteen tiles then.
    pub fn most_overlap(self) -> u32 {
        self.side - self.side.div_ceil(4)
    }

    fn bag(&self, image: RgbImage) -> Result<Bag, ImageError> {
        Ok(Bag { windows: self.windows(image.dimensions())?, image })
    }

    /// The windows of an image of that width and height, in rows from the upper left: every pixel lies in at least one.
    /// The last of a row or column ends at the border, so that it may overlap more than the others. Where the image is
    /// narrower than a tile, its whole width is one. Those in the middle of four others follow, in rows too.
    ///
    /// # Errors
    /// When there are more than [`MAX_TILES`].
    pub fn windows(&self, (width, height): (u32, u32)) -> Result<Vec<Window>, ImageError> {
        let count = self.count((width, height));
        if count > MAX_TILES {
            return Err(ImageError::TooManyTiles { count, side: self.side });
        }
        let (columns, rows): (Vec<_>, Vec<_>) = (self.spans(width).collect(), self.spans(height).collect());
        let mut windows = grid(&columns, &rows);
        if self.staggered {
            windows.extend(grid(&middles(&columns), &middles(&rows)));
        }
        Ok(windows)
    }

    /// How many tiles an image of that width and height has, with all that a second look may take.
    pub fn count(&self, (width, height): (u32, u32)) -> usize {
        let (across, down) = (self.along(width), self.along(height));
        let between = if self.staggered { (across - 1).saturating_mul(down - 1) } else { 0 };
        let closer = (self.second_look as usize).saturating_mul((SHIFTS * SHIFTS) as usize);
        across.saturating_mul(down).saturating_add(between).saturating_add(closer)
    }

    /// The windows of a second look at an image of that width and height: the first places that are at least a patch apart,
    /// each in the middle of tiles that are shifted by parts of a patch across and down. Each window comes once.
    pub fn closer(&self, places: impl Iterator<Item = Place>, (width, height): (u32, u32)) -> Vec<Window> {
        let mut seen: Vec<Place> = Vec::new();
        let mut windows = Vec::new();
        for place in places {
            let apart = |other: &Place| (place.x - other.x).abs().max((place.y - other.y).abs()) >= place.side;
            if seen.len() == self.second_look as usize || !seen.iter().all(apart) {
                continue;
            }
            seen.push(place);
            let spans = |middle: f64, length: u32| {
                let side = self.side.min(length);
                let start = move |shift: u32| {
                    let shifted = middle - f64::from(side) / 2.0 + place.side * f64::from(shift) / f64::from(SHIFTS);
                    ((shifted.round().max(0.0) as u32).min(length - side), side)
                };
                (0..SHIFTS).map(start).collect::<Vec<_>>()
            };
            for window in grid(&spans(place.x, width), &spans(place.y, height)) {
                if !windows.contains(&window) {
                    windows.push(window);
                }
            }
        }
        windows
    }

    /// Tiles along a side of the image.
    fn along(self, length: u32) -> usize {
        1 + length.saturating_sub(self.side).div_ceil(self.stride()) as usize
    }

    fn stride(self) -> u32 {
        self.side.saturating_sub(self.overlap).max(1)
    }

    /// Start and length of each tile along a side of the image.
    fn spans(&self, length: u32) -> impl Iterator<Item = (u32, u32)> {
        let (side, stride) = (self.side.min(length), self.stride());
        (0..self.along(length)).map(move |tile| ((tile as u32).saturating_mul(stride).min(length - side), side))
    }
}

/// The windows with these starts and lengths across and down, row by row.
fn grid(columns: &[(u32, u32)], rows: &[(u32, u32)]) -> Vec<Window> {
    let row = |&(y, height)| columns.iter().map(move |&(x, width)| Window { x, y, width, height });
    rows.iter().flat_map(row).collect()
}

/// The spans half way between neighbours.
fn middles(spans: &[(u32, u32)]) -> Vec<(u32, u32)> {
    spans.windows(2).map(|pair| (u32::midpoint(pair[0].0, pair[1].0), pair[0].1)).collect()
}

impl Pipeline {
    /// Decodes a file that is cut into tiles.
    ///
    /// # Errors
    /// When the file is not a usable image, or would have too many tiles.
    pub fn bag(&self, tiles: &Tiles, path: &Path) -> Result<Bag, ImageError> {
        tiles.bag(self.decoded(path)?.image)
    }

    /// The same, looked at more closely: for files that are read once.
    ///
    /// # Errors
    /// As [`Pipeline::bag`].
    pub fn bag_once(&self, tiles: &Tiles, path: &Path) -> Result<Bag, ImageError> {
        tiles.bag(self.seen(path, decode::decode_described)?.image)
    }
}

impl Preprocess {
    /// The pixels of one tile, shape (3, side, side), standardised.
    ///
    /// # Errors
    /// When the window has no pixels.
    pub fn tile(&self, image: &RgbImage, window: Window) -> Result<Vec<f32>, ImageError> {
        Ok(self.normalization.standardize(&self.geometry.resized_window(image, window)?))
    }

    /// The pixels of some tiles of an image, one after another.
    ///
    /// # Errors
    /// When a window has no pixels.
    pub fn tiles_of(&self, bag: &Bag, tiles: &[usize]) -> Result<Vec<f32>, ImageError> {
        let mut all = Vec::with_capacity(tiles.len() * self.geometry.image_size.values());
        for &tile in tiles {
            all.extend(self.tile(&bag.image, bag.windows[tile])?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::transform::{Geometry, Interpolation, Normalization};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_pixel_lies_in_a_tile_and_no_tile_leaves_the_image(
            (width, height) in (1u32..700, 1u32..700), side in 16u32..200, share in 0.0..0.75f64, staggered: bool,
        ) {
            let tiles = Tiles { side, overlap: (f64::from(side) * share) as u32, staggered, second_look: 0 };
            let count = tiles.count((width, height));
            if count > MAX_TILES {
                prop_assert!(tiles.windows((width, height)).is_err());
                return Ok(());
            }
            let windows = tiles.windows((width, height)).unwrap();
            prop_assert_eq!(windows.len(), count);
            let mut seen = vec![false; (width * height) as usize];
            for window in &windows {
                prop_assert_eq!((window.width, window.height), (side.min(width), side.min(height)));
                prop_assert!(window.x + window.width <= width && window.y + window.height <= height);
                for y in window.y..window.y + window.height {
                    let start = (y * width + window.x) as usize;
                    seen[start..start + window.width as usize].fill(true);
                }
            }
            prop_assert!(seen.iter().all(|&seen| seen));
            let plain = Tiles { staggered: false, ..tiles }.windows((width, height)).unwrap();
            prop_assert_eq!(&windows[..plain.len()], plain);
            // Neighbours in a row have what they must have in common.
            for pair in windows.windows(2).filter(|pair| pair[0].y == pair[1].y) {
                prop_assert!(pair[1].x > pair[0].x && pair[0].x + pair[0].width >= pair[1].x + tiles.overlap);
            }
        }
    }

    #[test]
    fn the_defaults_follow_the_model_and_three_quarters_are_the_most_overlap() {
        let settings = TileSettings { side: None, scale: None, overlap: None, staggered: false, second_look: 0 };
        let resolved = |settings| Tiles::resolve(&settings, 112.into()).map(|tiles| (tiles.side, tiles.overlap));
        assert_eq!(resolved(settings).unwrap(), (112, 14));
        assert_eq!(resolved(TileSettings { scale: Some(0.5), ..settings }).unwrap(), (224, 28));
        assert_eq!(resolved(TileSettings { side: Some(300), overlap: Some(0), ..settings }).unwrap(), (300, 0));
        let refused = resolved(TileSettings { overlap: Some(85), ..settings }).unwrap_err();
        assert!(refused.to_string().contains("overlap = 85 is more than three quarters"), "{refused}");
        assert_eq!(resolved(TileSettings { overlap: Some(84), ..settings }).unwrap(), (112, 84));
        let refused = Tiles::resolve(&settings, [112, 224].into()).unwrap_err().to_string();
        assert!(refused.contains("model.image_size = [112, 224]"), "{refused}");
    }

    #[test]
    fn staggered_tiles_lie_in_the_middle_of_four_others() {
        let tiles = Tiles { side: 112, overlap: 52, staggered: true, second_look: 0 };
        let corners = |size| tiles.windows(size).unwrap().iter().map(|window| (window.x, window.y)).collect::<Vec<_>>();
        assert_eq!(
            corners((232, 180)),
            [(0, 0), (60, 0), (120, 0), (0, 60), (60, 60), (120, 60), (0, 68), (60, 68), (120, 68)]
                .into_iter()
                .chain([(30, 30), (90, 30), (30, 64), (90, 64)])
                .collect::<Vec<_>>()
        );
        assert_eq!(tiles.count((3000, 2000)), 1650 + 49 * 32);
        assert_eq!(corners((100, 172)), [(0, 0), (0, 60)], "between the tiles of one column there is nothing");
    }

    #[test]
    fn a_second_look_is_shifted_by_quarters_of_a_patch_and_stays_inside() {
        let tiles = Tiles { side: 112, overlap: 52, staggered: false, second_look: 2 };
        let place = |x, y| Place { x, y, side: 8.0 };
        // The second place is the first, within a patch of it; the fourth is one too many.
        let places = [place(300.0, 200.0), place(305.0, 204.0), place(2.0, 60.0), place(500.0, 500.0)];
        let windows = tiles.closer(places.into_iter(), (1000, 800));
        let corners: Vec<_> = windows.iter().map(|window| (window.x, window.y)).collect();
        assert_eq!(corners[..5], [(244, 144), (246, 144), (248, 144), (250, 144), (244, 146)]);
        assert_eq!(corners[15], (250, 150));
        assert_eq!(corners[16..], [(0, 4), (0, 6), (0, 8), (0, 10)], "no tile begins outside, and none comes twice");
        assert!(windows.iter().all(|window| (window.width, window.height) == (112, 112)));
        assert_eq!(tiles.count((3000, 2000)), 1650 + 2 * 16);
    }

    #[test]
    fn an_image_may_not_have_more_tiles_than_anyone_waits_for() {
        let tiles = Tiles { side: 16, overlap: 8, staggered: false, second_look: 0 };
        let refused = tiles.windows((4096, 4096)).err().unwrap().to_string();
        assert!(refused.contains("261121 tiles") && refused.contains("preprocess.tiles.side"), "{refused}");
    }

    #[test]
    fn a_tile_of_the_input_s_own_side_is_copied_pixel_by_pixel() {
        let geometry = Geometry::squash(8, Interpolation::Bicubic);
        let image = RgbImage::from_fn(20, 13, |x, y| image::Rgb([(x * 11) as u8, (y * 17) as u8, (x * y) as u8]));
        let normalization = Normalization::PerChannel { mean: [0.0; 3], std: [1.0; 3] };
        let tiles = Some(Tiles { side: 8, overlap: 1, staggered: false, second_look: 0 });
        let preprocess = Preprocess { geometry, normalization, tiles };
        for window in preprocess.tiles.unwrap().windows((20, 13)).unwrap() {
            let pixels = preprocess.tile(&image, window).unwrap();
            let own = image::imageops::crop_imm(&image, window.x, window.y, 8, 8).to_image();
            assert_eq!(pixels, normalization.standardize(&own));
        }
    }
}
