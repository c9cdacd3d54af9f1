//! Stains: soft irregular spots, and drops that dried to a rim; darker or lighter than what they lie on.

use super::Augment;
use super::paint::{amplitude, around, count, direction, point, shade, shorter_side, smooth_step};
use crate::rng::Stream;
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Harmonics of an outline, from 2 (an ellipse) on.
const HARMONICS: usize = 4;
/// Stains that are dark: dirt, oil and dried drops are seen more often than something bright.
const DARK: f64 = 0.7;

/// `augment.stains`: soft irregular spots and drops with a rim.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stains {
    // A few small ones, mild enough that a defect beneath remains to be seen.
    /// Probability of staining an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.3))]
    pub p: f64,
    /// Largest share of the way to black or white.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.5))]
    pub strength: f64,
    /// Fewest and most stains.
    #[schemars(inner(range(max = 100)), extend("default" = [1, 4]))]
    pub count: [u32; 2],
    /// Smallest and largest diameter as fractions of the shorter side.
    #[schemars(inner(range(min = 1e-3, max = 1.0)), extend("default" = [0.05, 0.2]))]
    pub size: [f64; 2],
}

impl Augment for Stains {
    const FLAW: Option<fn(f64) -> Self> = Some(|strength| Self { p: 1.0, strength, count: [4, 8], size: [0.05, 0.25] });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, self.strength)
    }

    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        for _ in 0..count(self.count, rng) {
            Stain::draw(self, &image, rng).paint(&mut image);
        }
        image
    }
}

/// How the colour runs from the outline inwards.
enum Profile {
    /// Fading from the middle; the share of the radius over which it fades.
    Spot { softness: f32 },
    /// Strongest near the outline, as a drop leaves it when it dries.
    Drop,
}

struct Stain {
    centre: (f32, f32),
    radius: f32,
    /// Complex weights of the harmonics: the radius in direction z is 1 + the real part of the sum of weight * z^k.
    lobes: [(f32, f32); HARMONICS],
    profile: Profile,
    share: f32,
}

impl Stain {
    fn draw(settings: &Stains, image: &RgbImage, rng: &mut Stream) -> Self {
        let share = amplitude(settings.strength, rng);
        let diameter = rng.range(settings.size[0], settings.size[1]) as f32 * shorter_side(image);
        let centre = point(image, rng);
        let lobes = std::array::from_fn(|i| {
            let size = 0.9 * rng.uniform() as f32 / ((i + 2) * (i + 2)) as f32;
            let (x, y) = direction(rng);
            (size * x, size * y)
        });
        let share = if rng.chance(DARK) { -share } else { share };
        let softness = rng.range(0.3, 0.9) as f32;
        let profile = if rng.chance(0.5) { Profile::Drop } else { Profile::Spot { softness } };
        Self { centre, radius: (diameter / 2.0).max(0.5), lobes, profile, share }
    }

    fn paint(&self, image: &mut RgbImage) {
        let (xs, ys) = around(image, self.centre, 1.5 * self.radius);
        for y in ys {
            for x in xs.clone() {
                let cover = self.cover(x as f32 + 0.5 - self.centre.0, y as f32 + 0.5 - self.centre.1);
                if cover > 0.0 {
                    shade(image.get_pixel_mut(x, y), self.share * cover);
                }
            }
        }
    }

    /// How much of the stain's colour lies at an offset from its centre, from 0 to 1.
    fn cover(&self, dx: f32, dy: f32) -> f32 {
        let distance = (dx * dx + dy * dy).sqrt();
        let outline = self.radius * self.outline((dx / distance.max(1e-6), dy / distance.max(1e-6)));
        // 1 in the middle, 0 on the outline.
        let depth = 1.0 - distance / outline;
        match self.profile {
            Profile::Spot { softness } => smooth_step(depth / softness),
            Profile::Drop => smooth_step(depth / 0.12) * (1.0 - 0.6 * smooth_step((depth - 0.08) / 0.25)),
        }
    }

    /// The radius in a direction (a complex number of length 1), relative to the mean.
    fn outline(&self, z: (f32, f32)) -> f32 {
        let times_z = |power: (f32, f32)| (power.0 * z.0 - power.1 * z.1, power.0 * z.1 + power.1 * z.0);
        let mut power = z;
        let mut radius = 1.0;
        for lobe in self.lobes {
            power = times_z(power);
            radius += lobe.0 * power.0 - lobe.1 * power.1;
        }
        radius
    }
}
