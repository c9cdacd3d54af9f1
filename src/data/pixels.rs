//! A checksum of the pixels of an image: the same for a lossless copy in another format, whose bytes differ.

use crc32fast::Hasher;
use image::RgbImage;

/// Checksums that take turns at the rows, so that images that differ in several rows differ in several checksums.
const LANES: usize = 4;

/// The size of an image, and a CRC-32 for each lane: row r is in lane r modulo the number of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PixelSum {
    size: (u32, u32),
    lanes: [u32; LANES],
}

impl PixelSum {
    /// The checksum of an image that is upright already.
    pub fn of(image: &RgbImage) -> Self {
        let mut lanes = [(); LANES].map(|()| Hasher::new());
        let row = 3 * image.width().max(1) as usize;
        for (number, row) in image.as_raw().chunks(row).enumerate() {
            lanes[number % LANES].update(row);
        }
        Self { size: image.dimensions(), lanes: lanes.map(Hasher::finalize) }
    }

    /// As it stands in `splits.csv`.
    pub fn text(self) -> String {
        let (width, height) = self.size;
        let lanes: String = self.lanes.iter().map(|sum| format!("{sum:08x}")).collect();
        format!("{width}x{height}-{lanes}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn any_pixel_and_the_shape_change_the_sum() {
        let image = RgbImage::from_fn(6, 9, |x, y| Rgb([(7 * x + 31 * y) as u8, x as u8, y as u8]));
        let sum = PixelSum::of(&image);
        assert_eq!(sum, PixelSum::of(&image.clone()));
        for (x, y) in image.enumerate_pixels().map(|(x, y, _)| (x, y)) {
            let mut other = image.clone();
            other.get_pixel_mut(x, y).0[1] ^= 1;
            assert_ne!(sum, PixelSum::of(&other), "{x}, {y}");
        }
        let flat = |width, height| PixelSum::of(&RgbImage::new(width, height)).text();
        assert_ne!(flat(4, 8), flat(8, 4));
        // CRC-32 of nothing is 0, that of twelve zeros as Python's zlib.crc32(bytes(12)) gives it.
        assert_eq!(flat(4, 1), "4x1-7bd5c66f000000000000000000000000");
    }
}
