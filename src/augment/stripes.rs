//! Stripes: one soft band, or many at equal distances, at any angle: rollers, seams, lighting tubes, a line camera.

use super::Augment;
use super::paint::{direction, point, shade, shorter_side, signed_amplitude, smooth_step};
use crate::rng::Stream;
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `augment.stripes`: one band or many at equal distances, at any angle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stripes {
    /// Probability of striping an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub p: f64,
    /// Largest share of the way to black or white.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.25))]
    pub strength: f64,
    /// Narrowest and widest band as fractions of the shorter side.
    #[schemars(inner(range(min = 1e-3, max = 1.0)), extend("default" = [0.01, 0.06]))]
    pub width: [f64; 2],
}

impl Augment for Stripes {
    const FLAW: Option<fn(f64) -> Self> = Some(|strength| Self { p: 1.0, strength, width: [0.02, 0.1] });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, self.strength)
    }

    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        Bands::draw(self, &image, rng).paint(&mut image);
        image
    }
}

struct Bands {
    /// Across the bands.
    normal: (f32, f32),
    /// A point in the middle of a band.
    through: (f32, f32),
    width: f32,
    /// From band to band; none = there is only one.
    period: Option<f32>,
    share: f32,
}

impl Bands {
    fn draw(settings: &Stripes, image: &RgbImage, rng: &mut Stream) -> Self {
        let share = signed_amplitude(settings.strength, rng);
        let width = (rng.range(settings.width[0], settings.width[1]) as f32 * shorter_side(image)).max(1.0);
        let (normal, through) = (direction(rng), point(image, rng));
        let period = width * rng.range(2.0, 6.0) as f32;
        Self { normal, through, width, period: rng.chance(0.5).then_some(period), share }
    }

    fn paint(&self, image: &mut RgbImage) {
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            let cover = self.cover(x as f32 + 0.5, y as f32 + 0.5);
            if cover > 0.0 {
                shade(pixel, self.share * cover);
            }
        }
    }

    /// How much of a band lies at a point, from 0 to 1; half at its edge.
    fn cover(&self, x: f32, y: f32) -> f32 {
        let across = (x - self.through.0) * self.normal.0 + (y - self.through.1) * self.normal.1;
        let distance = match self.period {
            None => across.abs(),
            Some(period) => (across - period * (across / period).round()).abs(),
        };
        let edge = (0.4 * self.width).max(1.0);
        smooth_step((self.width / 2.0 - distance) / edge + 0.5)
    }
}
