//! Small copies of images, to be shown within a page.

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use image::imageops;

/// The quality of the JPEG, out of 100: compression artefacts are just invisible at this size.
const QUALITY: u8 = 80;

/// The image with a longer side of at most `longest` pixels, its proportions kept; at least a pixel each way.
pub fn reduced(image: &RgbImage, longest: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let longer = width.max(height);
    if longer <= longest {
        return image.clone();
    }
    let scaled = |length: u32| ((u64::from(length) * u64::from(longest) / u64::from(longer)) as u32).max(1);
    imageops::thumbnail(image, scaled(width), scaled(height))
}

/// A JPEG file of the image, its longer side reduced to `side` pixels but never enlarged; one of 96 pixels
/// takes about 4 kB. None for an image without pixels.
pub fn thumbnail(image: &RgbImage, side: u32) -> Option<Vec<u8>> {
    if image.is_empty() {
        return None;
    }
    let small = reduced(image, side.clamp(1, u32::from(u16::MAX))); // JPEG has no longer sides
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&small).ok()?;
    Some(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn size(jpeg: &[u8]) -> (u32, u32) {
        let decoded = image::load_from_memory_with_format(jpeg, image::ImageFormat::Jpeg).unwrap();
        (decoded.width(), decoded.height())
    }

    #[test]
    fn proportions_are_kept_and_nothing_grows() {
        let cases = [
            ((400, 200), 96, (96, 48)),
            ((200, 400), 96, (48, 96)),
            ((50, 30), 96, (50, 30)),
            ((1000, 1), 96, (96, 1)),
            ((7, 7), 0, (1, 1)),
            ((1, 1), u32::MAX, (1, 1)),
        ];
        for ((width, height), side, expected) in cases {
            assert_eq!(size(&thumbnail(&RgbImage::new(width, height), side).unwrap()), expected, "{width} x {height}");
        }
        assert_eq!(thumbnail(&RgbImage::new(0, 5), 96), None);
    }

    #[test]
    fn colours_survive() {
        let image = RgbImage::from_pixel(300, 300, Rgb([200, 90, 30]));
        let jpeg = thumbnail(&image, 96).unwrap();
        let decoded = image::load_from_memory(&jpeg).unwrap().into_rgb8();
        assert!(decoded.pixels().all(|pixel| pixel.0.iter().zip([200, 90, 30]).all(|(a, b)| a.abs_diff(b) <= 4)));
    }
}
