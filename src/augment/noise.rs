//! Noise of a sensor: Gaussian, a constant part (readout) and one that grows with the root of the brightness (shots).

use super::Augment;
use super::paint::{amplitude, to_level};
use crate::rng::Stream;
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};
use std::sync::LazyLock;

/// Bits of a draw that choose a quantile.
const BITS: u32 = 12;

/// Midpoint quantiles of the standard normal distribution: drawing one of them is a hundred times faster than a
/// logarithm and a cosine, and 8-bit values cannot tell 4096 steps from none.
static QUANTILES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let normal = Normal::standard();
    let count = 1usize << BITS;
    (0..count).map(|i| normal.inverse_cdf((i as f64 + 0.5) / count as f64) as f32).collect()
});

/// `augment.noise`: Gaussian noise, partly constant and partly growing with the brightness as shot noise does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Probability of adding noise to an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.3))]
    pub p: f64,
    /// Largest standard deviation at white, where white is 1.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.03))]
    pub strength: f64,
}

impl Augment for Noise {
    const FLAW: Option<fn(f64) -> Self> = Some(|strength| Self { p: 1.0, strength: 0.5 * strength });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, self.strength)
    }

    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        let at_white = 255.0 * amplitude(self.strength, rng);
        let shots = rng.uniform() as f32;
        let deviation: [f32; 256] =
            std::array::from_fn(|value| at_white * (shots * value as f32 / 255.0 + 1.0 - shots).sqrt());
        let noisy = |value: u8, draw: f32| to_level(f32::from(value) + deviation[usize::from(value)] * draw);
        // A monochrome camera has one sensor a pixel, and a grey picture stays grey.
        let grey = image.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]);
        let quantiles: &[f32] = &QUANTILES;
        for pixel in image.pixels_mut() {
            let bits = rng.below(1 << (3 * BITS));
            let draw = |channel: u32| quantiles[(bits >> (channel * BITS)) as usize % quantiles.len()];
            let draws = if grey { [draw(0); 3] } else { [draw(0), draw(1), draw(2)] };
            pixel.0 = std::array::from_fn(|channel| noisy(pixel.0[channel], draws[channel]));
        }
        image
    }
}
