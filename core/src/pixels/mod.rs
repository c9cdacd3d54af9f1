//! Arithmetic on the pixels of 8-bit RGB images, and whether a JPEG holds all of them.

pub mod jpeg;
mod resample;
pub mod signature;
pub mod statistics;
mod thumbnail;

pub use resample::{Interpolation, resample};
pub use thumbnail::{reduced, thumbnail};

use image::{Rgb, RgbImage};

/// A rectangle of an image, in pixels; inside the image and not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// An RGB picture of twice this width and height, row by row, reduced to it: the mean of each block of 2 x 2 pixels.
pub fn halved(large: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let row = 3 * width as usize;
    let mut pixels = vec![0; row * height as usize];
    for (lines, row) in large.chunks_exact(4 * row).zip(pixels.chunks_exact_mut(row)) {
        let (upper, lower) = lines.split_at(lines.len() / 2);
        let blocks = upper.as_chunks::<6>().0.iter().zip(lower.as_chunks::<6>().0);
        for ((upper, lower), pixel) in blocks.zip(row.as_chunks_mut::<3>().0) {
            let mean = |channel: usize| {
                let sum = |pair: &[u8; 6]| u16::from(pair[channel]) + u16::from(pair[channel + 3]);
                ((sum(upper) + sum(lower) + 2) / 4) as u8
            };
            *pixel = [mean(0), mean(1), mean(2)];
        }
    }
    pixels
}

/// The sum over all pixels of the difference between the largest and the smallest channel: 0 of an image in greys.
pub fn color_spread(image: &RgbImage) -> u64 {
    let spread = |&[r, g, b]: &[u8; 3]| u64::from(r.max(g).max(b) - r.min(g).min(b));
    image.as_raw().as_chunks().0.iter().map(spread).sum()
}

/// The luma of ITU-R BT.601, rounded, as Pillow's `convert("L")`.
#[inline]
pub fn luma(Rgb([r, g, b]): Rgb<u8>) -> f32 {
    (0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)).round()
}

/// Standardised pixels, `(x - mean) / std` of values in 0..1: shape (3, height, width).
pub fn standardized_planes(image: &RgbImage, mean: [f32; 3], std: [f32; 3]) -> Vec<f32> {
    let mut pixels = Vec::with_capacity(image.as_raw().len());
    for channel in 0..3 {
        // A channel has 256 values only.
        let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean[channel]) / std[channel]);
        pixels.extend(image.as_raw().chunks_exact(3).map(|pixel| table[usize::from(pixel[channel])]));
    }
    pixels
}
