//! Near-duplicates: pictures that look the same to a person although their files differ.
//!
//! Two tests, both on the luma reduced to 32 x 32 pixels. A 63-bit hash of the signs of its low frequencies (pHash,
//! Zauner 2010: DCT coefficients against their median) finds candidates; the correlation of the small pictures decides,
//! since images of one texture share low frequencies without being the same. Neither changes with brightness and
//! contrast.
//!
//! Evidence for the bounds, on the 360 textile images (the tests repeat it): none of the 64,620 pairs of different images
//! counts as near; re-encoded, brighter and resized copies all do, as do copies cropped by 1 % at each edge, and of those
//! cropped by 2 % more than nine in ten. Parts that a fixture holds in the same position look alike to both tests: such
//! pairs are worth a look, not an error.

use super::decode::ImageError;
use super::transform::{Geometry, Interpolation};
use crate::augment::luma;
use crate::config::ResizeMode;
use image::{Rgb, RgbImage};
use std::sync::LazyLock;

/// Side of the reduced picture.
const SIDE: usize = 32;
/// Frequencies in each direction that the hash looks at.
const LOW: usize = 8;
/// Most bits of 63 in which the hashes of near-duplicates differ. Of different textile images the nearest differ in 14.
const MOST_BITS: u32 = 12;
/// Least correlation of the reduced pictures of near-duplicates. Of different textile images the highest is 0.26.
const LEAST_CORRELATION: f64 = 0.7;

/// Pairs after which the search ends: the images of a data set with more show one thing from one viewpoint.
pub const MOST_PAIRS: usize = 10_000;
/// A picture with less contrast than one level is flat.
const LEAST_LENGTH: f64 = SIDE as f64;

/// A summary of an image, of about 1 kB, that finds others like it.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    hash: u64,
    /// The luma of the reduced picture.
    pixels: Vec<u8>,
    mean: f64,
    /// Of the pixels around their mean; 0 for a flat picture, where only rounding would be compared.
    inverse_length: f64,
}

/// How alike two images are.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Likeness {
    /// Bits in which the hashes differ, of 63.
    pub bits: u32,
    /// Correlation of the reduced pictures, from -1 to 1.
    pub correlation: f64,
}

impl Likeness {
    /// Whether a person would take them for the same picture.
    pub fn is_near(self) -> bool {
        self.bits <= MOST_BITS && self.correlation >= LEAST_CORRELATION
    }
}

impl Signature {
    /// The signature of an image.
    ///
    /// # Errors
    /// When the image has no pixels.
    pub fn of(image: &RgbImage) -> Result<Self, ImageError> {
        let geometry = Geometry {
            image_size: SIDE,
            resize: ResizeMode::Squash,
            interpolation: Interpolation::Bilinear,
            crop_pct: 1.0,
        };
        let small = geometry.square(image, Rgb([0; 3]))?;
        Ok(Self::of_pixels(small.pixels().map(|&pixel| luma(pixel) as u8).collect()))
    }

    fn of_pixels(pixels: Vec<u8>) -> Self {
        let mean = pixels.iter().map(|&value| f64::from(value)).sum::<f64>() / pixels.len() as f64;
        let length = pixels.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>().sqrt();
        let inverse_length = if length < LEAST_LENGTH { 0.0 } else { length.recip() };
        Self { hash: hash(&low_frequencies(&pixels)), pixels, mean, inverse_length }
    }

    /// How alike two images are.
    pub fn likeness(&self, other: &Self) -> Likeness {
        let products: u32 = self.pixels.iter().zip(&other.pixels).map(|(&a, &b)| u32::from(a) * u32::from(b)).sum();
        let covariance = f64::from(products) - self.pixels.len() as f64 * self.mean * other.mean;
        let bits = (self.hash ^ other.hash).count_ones();
        Likeness { bits, correlation: covariance * self.inverse_length * other.inverse_length }
    }
}

/// Two near images by their positions, the smaller first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearPair {
    /// One of them.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// How alike they are.
    pub likeness: Likeness,
}

/// The pairs of near images, in the order of their positions, at most [`MOST_PAIRS`]. Every image is compared with every
/// other, which takes a tenth of a second for 10,000.
pub fn near_pairs(signatures: &[&Signature]) -> Vec<NearPair> {
    let hashes: Vec<u64> = signatures.iter().map(|signature| signature.hash).collect();
    let mut pairs = Vec::new();
    for (first, hash) in hashes.iter().enumerate() {
        let later = hashes.iter().enumerate().skip(first + 1);
        for (second, _) in later.filter(|(_, other)| (hash ^ *other).count_ones() <= MOST_BITS) {
            let likeness = signatures[first].likeness(signatures[second]);
            if likeness.is_near() {
                pairs.push(NearPair { first, second, likeness });
                if pairs.len() == MOST_PAIRS {
                    return pairs;
                }
            }
        }
    }
    pairs
}

/// Row k is the k-th cosine of the DCT-II, without its scale, which does not change a sign.
static COSINES: LazyLock<Vec<[f32; SIDE]>> = LazyLock::new(|| {
    let cosine = |k: usize, x: usize| (std::f64::consts::PI * k as f64 * (x as f64 + 0.5) / SIDE as f64).cos() as f32;
    (0..LOW).map(|k| std::array::from_fn(|x| cosine(k, x))).collect()
});

/// The coefficients of the lowest frequencies, (LOW, LOW), without the first, which is the mean.
fn low_frequencies(pixels: &[u8]) -> Vec<f32> {
    let dot = |cosine: &[f32; SIDE], values: &mut dyn Iterator<Item = f32>| -> f32 {
        cosine.iter().zip(values).map(|(c, v)| c * v).sum()
    };
    // (SIDE, LOW): each row transformed.
    let rows: Vec<f32> = pixels
        .chunks_exact(SIDE)
        .flat_map(|row| COSINES.iter().map(|cosine| dot(cosine, &mut row.iter().map(|&value| f32::from(value)))))
        .collect();
    let column = |k: usize| rows[k..].iter().step_by(LOW).copied();
    let all = COSINES.iter().flat_map(|cosine| (0..LOW).map(move |k| dot(cosine, &mut column(k))));
    all.skip(1).collect()
}

/// A bit for each coefficient: whether it is above their median.
fn hash(coefficients: &[f32]) -> u64 {
    let mut sorted = coefficients.to_vec();
    sorted.sort_by(f32::total_cmp);
    let median = sorted[sorted.len() / 2];
    coefficients.iter().enumerate().fold(0, |hash, (bit, &value)| hash | u64::from(value > median) << bit)
}

#[cfg(test)]
#[path = "similar_tests.rs"]
mod tests;
