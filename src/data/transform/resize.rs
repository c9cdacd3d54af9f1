//! From an image of any shape to a square: squash, letterbox or centre crop.
//!
//! Every value is Pillow's (see `resample`): `tests/fixtures/make_image_fixtures.py` makes the pictures that the tests
//! compare with.

use super::BackboneDefaults;
use super::resample::{Interpolation, resample};
use crate::augment::Window;
use crate::config::{InterpolationChoice, PreprocessSettings, ResizeMode};
use crate::data::decode::ImageError;
use image::{Rgb, RgbImage, imageops};
use serde::{Deserialize, Serialize};

/// Longest aspect ratio that is resized whole before a centre crop. The crop discards the ends anyway, and a sliver
/// of 65535 x 1 pixels would become a picture of gigabytes first.
const LONGEST_ASPECT: u32 = 16;

/// Smallest `crop_pct` that is followed.
const SMALLEST_CROP_PCT: f64 = 0.1;

/// All of an image.
fn whole(image: &RgbImage) -> Window {
    Window { x: 0, y: 0, width: image.width(), height: image.height() }
}

/// How an image becomes a square.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Side of the square in pixels.
    pub image_size: usize,
    /// What happens to the aspect ratio.
    pub resize: ResizeMode,
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// For [`ResizeMode::Crop`]: side of the centre crop as a share of the resized short side, above 0 to 1.
    pub crop_pct: f64,
}

impl Geometry {
    /// The share of the short side that a crop keeps, within what is followed.
    pub fn crop_pct(&self) -> f64 {
        self.crop_pct.clamp(SMALLEST_CROP_PCT, 1.0)
    }

    /// Fills in what the settings leave to the backbone.
    pub fn resolve(settings: &PreprocessSettings, image_size: usize, backbone: &BackboneDefaults) -> Self {
        let interpolation = match settings.interpolation {
            InterpolationChoice::Backbone => backbone.interpolation,
            InterpolationChoice::Bilinear => Interpolation::Bilinear,
            InterpolationChoice::Bicubic => Interpolation::Bicubic,
        };
        Self { image_size, resize: settings.resize, interpolation, crop_pct: backbone.crop_pct }
    }

    /// The square; `fill` colours the border of a letterbox.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn square(&self, image: &RgbImage, fill: Rgb<u8>) -> Result<RgbImage, ImageError> {
        match self.resize {
            ResizeMode::Squash => self.square_of(image, whole(image)),
            ResizeMode::Letterbox => Ok(self.pad(&self.content(image)?, fill)),
            ResizeMode::Crop => self.center_crop(image),
        }
    }

    /// The share of an image's area that a centre crop leaves out, from 0 to 1; 0 for what shows the whole image.
    pub fn discarded(&self, (width, height): (u32, u32)) -> f64 {
        let (short, long) = (f64::from(width.min(height)), f64::from(width.max(height)));
        if self.resize != ResizeMode::Crop || long == 0.0 {
            return 0.0;
        }
        let side = self.crop_pct() * short;
        1.0 - side * side / (short * long)
    }

    /// Pixels of the square for one of an image of this size, across and down, at most 1 each.
    pub fn scales(&self, (width, height): (u32, u32)) -> (f64, f64) {
        let (width, height, side) = (f64::from(width), f64::from(height), self.image_size as f64);
        let (across, down) = match self.resize {
            ResizeMode::Squash => (side / width, side / height),
            ResizeMode::Letterbox => (side / width.max(height), side / width.max(height)),
            ResizeMode::Crop => {
                let short = self.crop_pct() * width.min(height);
                (side / short, side / short)
            }
        };
        (across.min(1.0), down.min(1.0))
    }

    /// The picture content of the square: all of it, but without the border of a letterbox.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn content(&self, image: &RgbImage) -> Result<RgbImage, ImageError> {
        match self.resize {
            ResizeMode::Squash => self.square_of(image, whole(image)),
            ResizeMode::Crop => self.center_crop(image),
            ResizeMode::Letterbox => {
                resize(image, whole(image), self.scaled_to_fit(image.dimensions()), self.interpolation)
            }
        }
    }

    /// Left, upper, right and lower edge in pixels of the square, as they lie in an image of that width and height.
    pub fn box_in_image(&self, (width, height): (u32, u32), edges: [f64; 4]) -> [u32; 4] {
        let side = f64::from(self.side());
        // Where the square begins in the resized image, how large that is, and which window of the image it shows.
        let (start, resized, window) = match self.resize {
            ResizeMode::Squash => ((0.0, 0.0), (side, side), Window { x: 0, y: 0, width, height }),
            ResizeMode::Letterbox => {
                let (w, h) = self.scaled_to_fit((width, height));
                let border = |length: u32| -f64::from((self.side() - length) / 2);
                ((border(w), border(h)), (f64::from(w), f64::from(h)), Window { x: 0, y: 0, width, height })
            }
            ResizeMode::Crop => {
                let window = trimmed((width, height));
                let (w, h) = short_side_to(self.short_side(), (window.width, window.height));
                let start = |length: u32| f64::from(centered(length, self.side()));
                ((start(w), start(h)), (f64::from(w), f64::from(h)), window)
            }
        };
        let across = |at: f64| f64::from(window.x) + (at + start.0) / resized.0 * f64::from(window.width);
        let down = |at: f64| f64::from(window.y) + (at + start.1) / resized.1 * f64::from(window.height);
        let [left, upper, right, lower] = edges;
        let within = |at: f64, length: u32| (at.round().max(0.0) as u32).min(length);
        [
            within(across(left), width),
            within(down(upper), height),
            within(across(right), width),
            within(down(lower), height),
        ]
    }

    /// A window of the image squashed to the square.
    ///
    /// # Errors
    /// When the window has no pixels.
    pub fn square_of(&self, image: &RgbImage, window: Window) -> Result<RgbImage, ImageError> {
        resize(image, window, (self.side(), self.side()), self.interpolation)
    }

    /// The size of an image whose longer side fills the square, halves rounded to even, as in timm.
    fn scaled_to_fit(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let ratio = f64::from(width.max(height).max(1)) / f64::from(self.side());
        let scaled = |length: u32| ((f64::from(length) / ratio).round_ties_even() as u32).clamp(1, self.side());
        (scaled(width), scaled(height))
    }

    /// The short side of an image before its middle is cut out.
    fn short_side(&self) -> u32 {
        // The share comes from files: a tiny one would ask for a gigantic picture.
        let crop_pct = self.crop_pct();
        ((f64::from(self.side()) / crop_pct).floor() as u32).max(self.side())
    }

    fn side(&self) -> u32 {
        u32::try_from(self.image_size).unwrap_or(u32::MAX)
    }

    fn pad(&self, content: &RgbImage, fill: Rgb<u8>) -> RgbImage {
        let mut square = RgbImage::from_pixel(self.side(), self.side(), fill);
        let (left, top) = ((self.side() - content.width()) / 2, (self.side() - content.height()) / 2);
        imageops::replace(&mut square, content, left.into(), top.into());
        square
    }

    /// timm's evaluation: the short side to `floor(side / crop_pct)`, then the middle.
    fn center_crop(&self, image: &RgbImage) -> Result<RgbImage, ImageError> {
        let window = trimmed(image.dimensions());
        let (width, height) = short_side_to(self.short_side(), (window.width, window.height));
        let resized = resize(image, window, (width, height), self.interpolation)?;
        let (left, top) = (centered(width, self.side()), centered(height, self.side()));
        Ok(imageops::crop_imm(&resized, left, top, self.side(), self.side()).to_image())
    }
}

/// The middle of an image that is longer than [`LONGEST_ASPECT`] times its width or height, else the whole.
fn trimmed((width, height): (u32, u32)) -> Window {
    let longest = width.min(height).saturating_mul(LONGEST_ASPECT);
    let (w, h) = (width.min(longest), height.min(longest));
    Window { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
}

/// Size after the short side becomes `short`; the long side is truncated, as in torchvision.
fn short_side_to(short: u32, (width, height): (u32, u32)) -> (u32, u32) {
    let long = |long_side: u32, short_side: u32| {
        (u64::from(short) * u64::from(long_side) / u64::from(short_side.max(1))) as u32
    };
    if width <= height { (short, long(height, width)) } else { (long(width, height), short) }
}

/// Left or upper edge of a centre crop, rounded half to even, as in torchvision.
fn centered(length: u32, crop: u32) -> u32 {
    (f64::from(length.saturating_sub(crop)) / 2.0).round_ties_even() as u32
}

/// Resizes a window of an image; pixels outside the window have no influence.
fn resize(
    image: &RgbImage,
    window: Window,
    size: (u32, u32),
    interpolation: Interpolation,
) -> Result<RgbImage, ImageError> {
    let Window { x, y, width, height } = window;
    let within =
        |from: u32, length: u32, whole: u32| length > 0 && from.checked_add(length).is_some_and(|end| end <= whole);
    if !within(x, width, image.width()) || !within(y, height, image.height()) || size.0 == 0 || size.1 == 0 {
        return Err(ImageError::Unsupported("resizing failed: the image has no pixels".into()));
    }
    Ok(resample(image, window, size, interpolation))
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
