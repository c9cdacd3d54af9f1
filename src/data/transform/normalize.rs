//! Standardisation of pixels, and the statistics it can use.

use super::BackboneDefaults;
use crate::config::{NormalizeChoice, PreprocessSettings};
use crate::error::{Error, Result};
use crate::size::Size;
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

/// Smallest divisor: one grey level. A channel that never varies (an X-ray's constant border, a grey image's copy)
/// would otherwise divide by zero.
const SMALLEST_STD: f32 = 1.0 / 255.0;
/// Interquartile range of a normal distribution with unit variance.
const NORMAL_IQR: f32 = 1.349;
/// Mean and standard deviation per channel of the `ImageNet` training set, as torchvision gives them.
pub const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// Mean and standard deviation that map 0..1 to -1..1.
pub const SYMMETRIC: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

/// How pixels in 0..1 are standardised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Normalization {
    /// `(x - mean) / std`
    PerChannel {
        /// Mean of each channel.
        mean: [f32; 3],
        /// Divisor of each channel, above 0.
        std: [f32; 3],
    },
    /// The mean and standard deviation of each channel over the batch. A prediction then depends on its batch.
    Batch,
}

/// Statistics of the training images for pixels in 0..1, per channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatistics {
    /// Mean.
    pub mean: [f32; 3],
    /// Standard deviation of the population.
    pub std: [f32; 3],
    /// Median.
    pub median: [f32; 3],
    /// Interquartile range.
    pub iqr: [f32; 3],
}

impl Normalization {
    /// Whether the choice needs the statistics of the training images.
    pub fn needs_statistics(choice: NormalizeChoice) -> bool {
        matches!(choice, NormalizeChoice::Dataset | NormalizeChoice::Robust)
    }

    /// Looks up the numbers of a choice.
    ///
    /// # Errors
    /// When statistics are needed but absent, or explicit ones were not given.
    pub fn resolve(
        settings: &PreprocessSettings,
        backbone: &BackboneDefaults,
        statistics: Option<&ChannelStatistics>,
    ) -> Result<Self> {
        let absent = |what: &str| Error::usage(format!("preprocess.normalize needs {what}"));
        let measured = || statistics.ok_or_else(|| absent("the statistics of the training images"));
        let (mean, std) = match settings.normalize {
            NormalizeChoice::Batch => return Ok(Self::Batch),
            NormalizeChoice::Backbone => (backbone.mean, backbone.std),
            NormalizeChoice::Imagenet => IMAGENET,
            NormalizeChoice::Symmetric => SYMMETRIC,
            NormalizeChoice::Dataset => measured().map(|found| (found.mean, found.std))?,
            NormalizeChoice::Robust => measured().map(|found| (found.median, found.iqr.map(|iqr| iqr / NORMAL_IQR)))?,
            NormalizeChoice::Explicit => settings.mean.zip(settings.std).ok_or_else(|| absent("mean and std"))?,
        };
        Ok(Self::PerChannel { mean, std: std.map(|std| std.max(SMALLEST_STD)) })
    }

    /// The colour that standardises to about zero; mid-grey for [`Normalization::Batch`].
    pub fn neutral_color(&self) -> Rgb<u8> {
        match self {
            Self::PerChannel { mean, .. } => Rgb(mean.map(|mean| (mean * 255.0).round() as u8)),
            Self::Batch => Rgb([128; 3]),
        }
    }

    /// What each image is standardised with by itself.
    fn scale(&self) -> ([f32; 3], [f32; 3]) {
        match *self {
            Self::PerChannel { mean, std } => (mean, std),
            Self::Batch => ([0.0; 3], [1.0; 3]),
        }
    }

    /// Standardised pixels, shape (3, height, width); only scaled to 0..1 for [`Normalization::Batch`].
    pub fn standardize(&self, image: &RgbImage) -> Vec<f32> {
        let (mean, std) = self.scale();
        let plane = image.width() as usize * image.height() as usize;
        let mut pixels = Vec::with_capacity(3 * plane);
        for channel in 0..3 {
            // A channel has 256 values only.
            let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean[channel]) / std[channel]);
            pixels.extend(image.as_raw().chunks_exact(3).map(|pixel| table[usize::from(pixel[channel])]));
        }
        pixels
    }

    /// A normalisation that needs no batch: for [`Normalization::Batch`], about mid-grey.
    pub(super) fn without_batch(self) -> Self {
        match self {
            Self::PerChannel { .. } => self,
            Self::Batch => Self::PerChannel { mean: SYMMETRIC.0, std: SYMMETRIC.1 },
        }
    }

    /// The image that standardised pixels, shape (3, height, width), come from: exactly what [`Self::standardize`] was
    /// given, where nothing was changed in between.
    pub(super) fn undo(&self, pixels: &[f32], size: Size) -> RgbImage {
        let (mean, std) = self.scale();
        RgbImage::from_fn(size.width as u32, size.height as u32, |x, y| {
            let at = y as usize * size.width + x as usize;
            let level = |channel: usize| pixels[channel * size.area() + at] * std[channel] + mean[channel];
            Rgb(std::array::from_fn(|channel| (level(channel) * 255.0).round().clamp(0.0, 255.0) as u8))
        })
    }

    /// Standardises a whole batch, shape (n, 3, height, width), where that is what the choice asks for.
    pub fn finish_batch(&self, pixels: &mut [f32], size: Size) {
        let plane = size.area();
        if *self != Self::Batch || plane == 0 {
            return;
        }
        for channel in 0..3 {
            let of_channel = |pixels: &mut [f32], visit: &mut dyn FnMut(&mut f32)| {
                pixels.chunks_exact_mut(plane).skip(channel).step_by(3).flatten().for_each(visit);
            };
            let (mut sum, mut squares) = (0.0f64, 0.0f64);
            of_channel(pixels, &mut |x| sum += f64::from(*x));
            let count = (pixels.len() / 3).max(1) as f64;
            let mean = sum / count;
            of_channel(pixels, &mut |x| squares += (f64::from(*x) - mean).powi(2));
            let std = (squares / count).sqrt().max(f64::from(SMALLEST_STD));
            of_channel(pixels, &mut |x| *x = ((f64::from(*x) - mean) / std) as f32);
        }
    }
}

/// Counts of the 256 values of each channel. Sums of counts do not depend on the order of the images.
#[derive(Debug, Clone)]
pub(in crate::data) struct Histograms([[u64; 256]; 3]);

impl Histograms {
    pub(in crate::data) fn new() -> Self {
        Self([[0; 256]; 3])
    }

    pub(in crate::data) fn add(&mut self, image: &RgbImage) {
        for pixel in image.as_raw().chunks_exact(3) {
            for (counts, &value) in self.0.iter_mut().zip(pixel) {
                counts[usize::from(value)] += 1;
            }
        }
    }

    pub(in crate::data) fn merge(&mut self, other: &Self) {
        for (counts, others) in self.0.iter_mut().zip(&other.0) {
            counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
        }
    }

    pub(in crate::data) fn statistics(&self) -> ChannelStatistics {
        let deviation = |counts: [u64; 256]| {
            let mean = average(&counts, |x| x);
            average(&counts, |x| (x - mean).powi(2)).sqrt() as f32
        };
        ChannelStatistics {
            mean: self.0.map(|counts| average(&counts, |x| x) as f32),
            std: self.0.map(deviation),
            median: self.0.map(|counts| quantile(&counts, 0.5) as f32),
            iqr: self.0.map(|counts| (quantile(&counts, 0.75) - quantile(&counts, 0.25)) as f32),
        }
    }
}

/// Mean of `f` over the values 0..1 of a histogram.
fn average(counts: &[u64; 256], f: impl Fn(f64) -> f64) -> f64 {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().enumerate().map(|(value, &count)| f(value as f64 / 255.0) * count as f64).sum::<f64>() / total
}

/// The smallest value, in 0..1, that at least the share `q` of the pixels does not exceed.
fn quantile(counts: &[u64; 256], q: f64) -> f64 {
    let wanted = q * counts.iter().sum::<u64>() as f64;
    let mut seen = 0;
    let value = counts.iter().position(|&count| {
        seen += count;
        seen > 0 && seen as f64 >= wanted
    });
    value.unwrap_or(0) as f64 / 255.0
}

#[cfg(test)]
#[path = "normalize_tests.rs"]
mod tests;
