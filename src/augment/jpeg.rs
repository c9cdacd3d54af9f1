//! Flaws of lossy compression: the image, written as a JPEG file and read again by the decoder of the data.

use super::Augment;
use super::paint::count;
use crate::rng::Stream;
use image::RgbImage;
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress, decompress_to};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `augment.jpeg`: compressed and decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jpeg {
    /// Probability of compressing an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.3))]
    pub p: f64,
    /// Lowest and highest quality.
    #[schemars(inner(range(min = 1, max = 100)), extend("default" = [50, 95]))]
    pub quality: [u8; 2],
}

impl Augment for Jpeg {
    const FLAW: Option<fn(f64) -> Self> =
        Some(|strength| Self { p: 1.0, quality: [(100.0 - 99.0 * strength).round() as u8; 2] });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, 1.0)
    }

    fn apply(&self, image: RgbImage, rng: &mut Stream) -> RgbImage {
        let quality = count(self.quality.map(u32::from), rng) as u8;
        // Only a size that no JPEG has fails, and such a picture is left as it is.
        compressed(&image, quality).unwrap_or(image)
    }
}

/// Colours keep their resolution: halving it would change a picture much at the best quality too.
fn compressed(image: &RgbImage, quality: u8) -> Option<RgbImage> {
    let (width, height) = image.dimensions();
    let size = (width as usize, height as usize);
    let file = compress(image.as_raw(), size.0, size.1, PixelFormat::Rgb, quality, Subsampling::S444).ok()?;
    RgbImage::from_raw(width, height, decompress_to(&file, PixelFormat::Rgb).ok()?.data)
}
