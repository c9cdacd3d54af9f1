//! Standardisation of pixels, and the statistics it can use.

use super::BackboneDefaults;
use crate::config::{NormalizeChoice, PreprocessSettings};
use crate::error::{Error, Result};
use crate::pixels::standardized_planes;
use crate::pixels::statistics::ChannelStatistics;
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
    pub fn scale(&self) -> ([f32; 3], [f32; 3]) {
        match *self {
            Self::PerChannel { mean, std } => (mean, std),
            Self::Batch => ([0.0; 3], [1.0; 3]),
        }
    }

    /// Standardised pixels, shape (3, height, width); only scaled to 0..1 for [`Normalization::Batch`].
    pub fn standardize(&self, image: &RgbImage) -> Vec<f32> {
        let (mean, std) = self.scale();
        standardized_planes(image, mean, std)
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

#[cfg(test)]
#[path = "normalize_tests.rs"]
mod tests;
