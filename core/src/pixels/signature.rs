//! What an image looks like in 1 kB: a 63-bit hash of the signs of its low frequencies (pHash, Zauner 2010: DCT coefficients
//! against their median), and its luma at 32 x 32 pixels.

use std::sync::LazyLock;

/// Side of the reduced picture.
pub const SIDE: usize = 32;
/// Frequencies in each direction that the hash looks at.
const LOW: usize = 8;
/// A picture with less contrast than one level is flat.
const LEAST_LENGTH: f64 = SIDE as f64;

/// A summary of an image, of about 1 kB, that finds others like it.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    hash: u64,
    /// The luma of the reduced picture.
    pixels: [u8; SIDE * SIDE],
    mean: f64,
    /// The inverse length of the pixels around their mean; 0 for a flat picture, where only rounding would be compared.
    inverse_length: f64,
}

impl Signature {
    /// The signature of an image whose luma was reduced to these pixels.
    pub fn of_pixels(pixels: [u8; SIDE * SIDE]) -> Self {
        let mean = pixels.iter().map(|&value| f64::from(value)).sum::<f64>() / pixels.len() as f64;
        let length = pixels.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>().sqrt();
        let inverse_length = if length < LEAST_LENGTH { 0.0 } else { length.recip() };
        Self { hash: hash(&low_frequencies(&pixels)), pixels, mean, inverse_length }
    }

    /// In how many bits, of 63, the hashes differ.
    #[inline]
    pub fn differing_bits(&self, other: &Self) -> u32 {
        (self.hash ^ other.hash).count_ones()
    }

    /// Correlation of the reduced pictures, from -1 to 1.
    pub fn correlation(&self, other: &Self) -> f64 {
        let products: u32 = self.pixels.iter().zip(&other.pixels).map(|(&a, &b)| u32::from(a) * u32::from(b)).sum();
        let covariance = f64::from(products) - self.pixels.len() as f64 * self.mean * other.mean;
        covariance * self.inverse_length * other.inverse_length
    }
}

/// Of each image the bits that say where a coefficient is above the median of the set. Under a fixed camera all images share
/// what the plain hash compares, and these tell them apart.
///
/// # Panics
/// When there are none.
pub fn relative_hashes(signatures: &[&Signature]) -> Vec<u64> {
    let coefficients = |signature: &&Signature| -> Vec<f32> {
        let scale = signature.inverse_length as f32;
        low_frequencies(&signature.pixels).into_iter().map(|value| value * scale).collect()
    };
    let of_images: Vec<Vec<f32>> = signatures.iter().map(coefficients).collect();
    let median = |at: usize| {
        let mut values: Vec<f32> = of_images.iter().map(|values| values[at]).collect();
        let middle = values.len() / 2;
        *values.select_nth_unstable_by(middle, f32::total_cmp).1
    };
    let medians: Vec<f32> = (0..LOW * LOW - 1).map(median).collect();
    of_images.iter().map(|values| bits(values.iter().zip(&medians).map(|(value, median)| value > median))).collect()
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
    bits(coefficients.iter().map(|&value| value > median))
}

fn bits(set: impl Iterator<Item = bool>) -> u64 {
    set.enumerate().fold(0, |bits, (at, set)| bits | u64::from(set) << at)
}
