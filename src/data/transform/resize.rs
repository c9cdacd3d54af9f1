//! From an image of any shape to the size of the input: squash, letterbox or centre crop.
//!
//! Every value is Pillow's (see [`resample`]): `tests/fixtures/make_image_fixtures.py` makes the pictures that the tests
//! compare with.

use super::BackboneDefaults;
use crate::augment::Window;
use crate::config::{InterpolationChoice, PreprocessSettings, ResizeMode};
use crate::data::decode::ImageError;
use crate::pixels::{Interpolation, resample};
use crate::size::Size;
use image::{Rgb, RgbImage, imageops};
use serde::{Deserialize, Serialize};

/// Longest aspect ratio, over that of the input, that is resized whole before a centre crop. The crop discards the ends anyway, and a sliver
/// of 65535 x 1 pixels would become a picture of gigabytes first.
const LONGEST_ASPECT: u32 = 16;

/// Smallest `crop_pct` that is followed.
const SMALLEST_CROP_PCT: f64 = 0.1;

/// All of an image.
fn whole(image: &RgbImage) -> Window {
    Window { x: 0, y: 0, width: image.width(), height: image.height() }
}

/// How an image gets the size of the input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Size of the input in pixels.
    pub image_size: Size,
    /// What happens to the aspect ratio.
    pub resize: ResizeMode,
    /// Filter of the resize.
    pub interpolation: Interpolation,
    /// For [`ResizeMode::Crop`]: the centre crop as a share of what the resized image has on the side that it fills, above 0
    /// to 1.
    pub crop_pct: f64,
}

impl Geometry {
    /// All of an image, squashed.
    pub fn squash(image_size: impl Into<Size>, interpolation: Interpolation) -> Self {
        Self { image_size: image_size.into(), resize: ResizeMode::Squash, interpolation, crop_pct: 1.0 }
    }

    /// The share of the short side that a crop keeps, within what is followed.
    pub fn crop_pct(&self) -> f64 {
        self.crop_pct.clamp(SMALLEST_CROP_PCT, 1.0)
    }

    /// Fills in what the settings leave to the backbone.
    pub fn resolve(settings: &PreprocessSettings, image_size: Size, backbone: &BackboneDefaults) -> Self {
        let interpolation = match settings.interpolation {
            InterpolationChoice::Backbone => backbone.interpolation,
            InterpolationChoice::Bilinear => Interpolation::Bilinear,
            InterpolationChoice::Bicubic => Interpolation::Bicubic,
        };
        Self { image_size, resize: settings.resize, interpolation, crop_pct: backbone.crop_pct }
    }

    /// The resized image; `fill` colours the border of a letterbox.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn resized(&self, image: &RgbImage, fill: Rgb<u8>) -> Result<RgbImage, ImageError> {
        match self.resize {
            ResizeMode::Squash => self.resized_window(image, whole(image)),
            ResizeMode::Letterbox => Ok(self.pad(&self.content(image)?, fill)),
            ResizeMode::Crop => self.center_crop(image),
        }
    }

    /// The share of an image's area that a centre crop leaves out, from 0 to 1; 0 for what shows the whole image.
    pub fn discarded(&self, (width, height): (u32, u32)) -> f64 {
        let area = f64::from(width) * f64::from(height);
        if self.resize != ResizeMode::Crop || area == 0.0 {
            return 0.0;
        }
        let (across, down) = self.cropped((width, height));
        1.0 - across * down / area
    }

    /// Width and height, in pixels of an image of that width and height, of what a centre crop shows.
    fn cropped(&self, (width, height): (u32, u32)) -> (f64, f64) {
        let (width, height, shape) = (f64::from(width), f64::from(height), self.shape());
        (self.crop_pct() * width.min(height * shape), self.crop_pct() * height.min(width / shape))
    }

    /// Width / height of the input.
    pub fn shape(&self) -> f64 {
        self.image_size.width as f64 / self.image_size.height.max(1) as f64
    }

    /// Pixels of the input for one of an image of this size, across and down, at most 1 each.
    pub fn scales(&self, size: (u32, u32)) -> (f64, f64) {
        let (width, height) = match self.resize {
            ResizeMode::Crop => self.cropped(size),
            _ => (f64::from(size.0), f64::from(size.1)),
        };
        let (across, down) = (self.image_size.width as f64 / width, self.image_size.height as f64 / height);
        let most = if self.resize == ResizeMode::Letterbox { across.min(down).min(1.0) } else { 1.0 };
        (across.min(most), down.min(most))
    }

    /// The picture content of the input: all of it, but without the border of a letterbox.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn content(&self, image: &RgbImage) -> Result<RgbImage, ImageError> {
        match self.resize {
            ResizeMode::Squash => self.resized_window(image, whole(image)),
            ResizeMode::Crop => self.center_crop(image),
            ResizeMode::Letterbox => {
                resize(image, whole(image), self.scaled_to_fit(image.dimensions()), self.interpolation)
            }
        }
    }

    /// Left, upper, right and lower edge as shares of the input, as they lie in an image of that width and height.
    pub fn box_in_image(&self, (width, height): (u32, u32), edges: [f64; 4]) -> [u32; 4] {
        let (input_width, input_height) = self.size();
        // Where the input begins in the resized image, how large that is, and which window of the image it shows.
        let (start, resized, window) = match self.resize {
            ResizeMode::Squash => ((0.0, 0.0), self.size(), Window { x: 0, y: 0, width, height }),
            ResizeMode::Letterbox => {
                let (w, h) = self.scaled_to_fit((width, height));
                let border = |length: u32, side: u32| -f64::from((side - length) / 2);
                ((border(w, input_width), border(h, input_height)), (w, h), Window { x: 0, y: 0, width, height })
            }
            ResizeMode::Crop => {
                let window = self.trimmed((width, height));
                let (w, h) = self.scaled_to_fill((window.width, window.height));
                let start = |length: u32, side: u32| f64::from(centered(length, side));
                ((start(w, input_width), start(h, input_height)), (w, h), window)
            }
        };
        let [across, down] = [
            (window.x, start.0, input_width, resized.0, window.width),
            (window.y, start.1, input_height, resized.1, window.height),
        ]
        .map(|(first, start, input, resized, length)| {
            move |at: f64| f64::from(first) + (at * f64::from(input) + start) / f64::from(resized) * f64::from(length)
        });
        let [left, upper, right, lower] = edges;
        let within = |at: f64, length: u32| (at.round().max(0.0) as u32).min(length);
        [
            within(across(left), width),
            within(down(upper), height),
            within(across(right), width),
            within(down(lower), height),
        ]
    }

    /// A window of the image squashed to the input.
    ///
    /// # Errors
    /// When the window has no pixels.
    pub fn resized_window(&self, image: &RgbImage, window: Window) -> Result<RgbImage, ImageError> {
        resize(image, window, self.size(), self.interpolation)
    }

    /// The size of an image that fits into the input, halves rounded to even, as in timm.
    fn scaled_to_fit(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let (w, h) = self.size();
        let ratio = (f64::from(width.max(1)) / f64::from(w)).max(f64::from(height.max(1)) / f64::from(h));
        let scaled = |length: u32, most: u32| ((f64::from(length) / ratio).round_ties_even() as u32).clamp(1, most);
        (scaled(width, w), scaled(height, h))
    }

    /// The size of an image before its middle is cut out: as in timm, the short side is that of a square over the share, or
    /// the image just fills a size that is not square.
    fn scaled_to_fill(&self, (width, height): (u32, u32)) -> (u32, u32) {
        // The share comes from files: a tiny one would ask for a gigantic picture.
        let crop_pct = self.crop_pct();
        let (w, h) = self.size();
        let before = |side: u32| ((f64::from(side) / crop_pct).floor() as u32).max(side);
        if w == h {
            return short_side_to(before(w), (width, height));
        }
        let ratio = (f64::from(width) / f64::from(before(w))).min(f64::from(height) / f64::from(before(h)));
        let scaled = |length: u32, least: u32| ((f64::from(length) / ratio).round_ties_even() as u32).max(least);
        (scaled(width, w), scaled(height, h))
    }

    /// Width and height of the input.
    fn size(&self) -> (u32, u32) {
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        (side(self.image_size.width), side(self.image_size.height))
    }

    fn pad(&self, content: &RgbImage, fill: Rgb<u8>) -> RgbImage {
        let (width, height) = self.size();
        let mut padded = RgbImage::from_pixel(width, height, fill);
        let (left, top) = ((width - content.width()) / 2, (height - content.height()) / 2);
        imageops::replace(&mut padded, content, left.into(), top.into());
        padded
    }

    /// timm's evaluation: resized to fill the input over `crop_pct`, then the middle.
    fn center_crop(&self, image: &RgbImage) -> Result<RgbImage, ImageError> {
        let window = self.trimmed(image.dimensions());
        let (width, height) = self.scaled_to_fill((window.width, window.height));
        let resized = resize(image, window, (width, height), self.interpolation)?;
        let (w, h) = self.size();
        Ok(imageops::crop_imm(&resized, centered(width, w), centered(height, h), w, h).to_image())
    }

    /// The middle of an image that is longer than [`LONGEST_ASPECT`] times what the input's shape asks for, else the whole.
    fn trimmed(&self, (width, height): (u32, u32)) -> Window {
        let (w, h) = self.size();
        let longest =
            |other: u32, side: u32, over: u32| other.saturating_mul(LONGEST_ASPECT * (side / over.max(1)).max(1));
        let (w, h) = (width.min(longest(height, w, h)), height.min(longest(width, h, w)));
        Window { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
    }
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
