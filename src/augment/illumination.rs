//! Uneven light: a gamma, and a factor that falls off across the image or away from a point of it.

use super::Augment;
use super::paint::{amplitude, direction, point, to_level};
use crate::rng::Stream;
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `augment.illumination`: light that falls off across the image, and a gamma.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Illumination {
    /// Probability of changing the light of an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.6))]
    pub p: f64,
    /// Largest relative change of the brightness at the edge; the gamma lies between 1 / (1 + x) and 1 + x.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.4))]
    pub strength: f64,
}

impl Augment for Illumination {
    const FLAW: Option<fn(f64) -> Self> = Some(|strength| Self { p: 1.0, strength });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, self.strength)
    }

    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        let change = amplitude(self.strength, rng);
        let exponent = (1.0 + self.strength).powf(rng.range(-1.0, 1.0)) as f32;
        let light = Light::draw(&image, rng);
        relight(&mut image, exponent, |x, y| 1.0 + change * light.at(x, y));
        image
    }
}

/// Where the light comes from.
enum Light {
    /// From one side to the other.
    Slope { centre: (f32, f32), across: (f32, f32) },
    /// From, or towards, one point.
    Spot { centre: (f32, f32), reach_square: f32, sign: f32 },
}

impl Light {
    fn draw(image: &RgbImage, rng: &mut Stream) -> Self {
        let (width, height) = (image.width() as f32, image.height() as f32);
        let (dx, dy) = direction(rng);
        let centre = point(image, rng);
        let sign = if rng.chance(0.5) { 1.0 } else { -1.0 };
        if rng.chance(0.5) {
            // At the corners along the direction the product is 1.
            let half = f32::midpoint(dx.abs() * width, dy.abs() * height);
            return Self::Slope { centre: (width / 2.0, height / 2.0), across: (dx / half, dy / half) };
        }
        let farthest = |at: f32, length: f32| at.max(length - at).powi(2);
        let reach_square = farthest(centre.0, width) + farthest(centre.1, height);
        Self::Spot { centre, reach_square, sign }
    }

    /// From -1 (darkest) to 1 (brightest).
    fn at(&self, x: f32, y: f32) -> f32 {
        match *self {
            Self::Slope { centre, across } => (x - centre.0) * across.0 + (y - centre.1) * across.1,
            Self::Spot { centre, reach_square, sign } => {
                let square = (x - centre.0).powi(2) + (y - centre.1).powi(2);
                sign * (1.0 - 2.0 * square / reach_square)
            }
        }
    }
}

/// Raises each value (in 0..1) to `exponent`, then multiplies it by the factor at its place.
fn relight(image: &mut RgbImage, exponent: f32, factor: impl Fn(f32, f32) -> f32) {
    let raised: [f32; 256] = std::array::from_fn(|value| 255.0 * (value as f32 / 255.0).powf(exponent));
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let factor = factor(x as f32 + 0.5, y as f32 + 0.5);
        pixel.0 = pixel.0.map(|value| to_level(factor * raised[usize::from(value)]));
    }
}
