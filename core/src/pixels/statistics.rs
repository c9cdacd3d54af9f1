//! Statistics of the channels of many images.

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// Statistics of images for pixels in 0..1, per channel.
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

/// Counts of the 256 values of each channel. Sums of counts do not depend on the order of the images.
#[derive(Debug, Clone)]
pub struct Histograms([[u64; 256]; 3]);

impl Default for Histograms {
    fn default() -> Self {
        Self([[0; 256]; 3])
    }
}

impl Histograms {
    /// Counts the pixels of an image.
    pub fn add(&mut self, image: &RgbImage) {
        for pixel in image.as_raw().chunks_exact(3) {
            for (counts, &value) in self.0.iter_mut().zip(pixel) {
                counts[usize::from(value)] += 1;
            }
        }
    }

    /// Takes in the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (counts, others) in self.0.iter_mut().zip(&other.0) {
            counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
        }
    }

    /// The statistics of all pixels that were counted.
    pub fn statistics(&self) -> ChannelStatistics {
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
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_known_image() {
        let mut histograms = Histograms::default();
        // Red: 0, 51, 102, 153, 204 (0 to 0.8 in steps of 0.2); green constant; blue mostly dark.
        let pixels = vec![0, 255, 0, 51, 255, 0, 102, 255, 0, 153, 255, 0, 204, 255, 255];
        histograms.add(&RgbImage::from_raw(5, 1, pixels).unwrap());
        let found = histograms.statistics();
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(found.mean[0], 0.4) && near(found.std[0], 0.08f32.sqrt()), "{found:?}");
        assert!(near(found.median[0], 0.4) && near(found.iqr[0], 0.4), "{found:?}");
        assert!(near(found.mean[1], 1.0) && near(found.std[1], 0.0), "{found:?}");
        assert!(near(found.median[2], 0.0) && near(found.iqr[2], 0.0) && near(found.mean[2], 0.2), "{found:?}");
    }
}
