//! Flaws of lossy compression: the image, written as a JPEG file and read again.

use super::Augment;
use super::paint::count;
use crate::config::JpegSettings;
use crate::data::decode::{DecodeOptions, decode};
use crate::rng::Stream;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

pub(super) struct Jpeg(pub JpegSettings);

impl Augment for Jpeg {
    fn apply(&self, image: RgbImage, rng: &mut Stream) -> RgbImage {
        if !rng.chance(self.0.p) {
            return image;
        }
        let quality = count(self.0.quality.map(u32::from), rng) as u8;
        // Only a size that no JPEG has fails, and such a picture is left as it is.
        compressed(&image, quality).unwrap_or(image)
    }
}

fn compressed(image: &RgbImage, quality: u8) -> Option<RgbImage> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality).encode_image(image).ok()?;
    decode(&file, DecodeOptions::default()).ok()
}
