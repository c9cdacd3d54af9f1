//! Stripes: one soft band, or many at equal distances, at any angle: rollers, seams, lighting tubes, a line camera.

use super::Augment;
use super::paint::{direction, point, shade, shorter_side, signed_amplitude, smooth_step};
use crate::config::StripesSettings;
use crate::rng::Stream;
use image::RgbImage;

pub(super) struct Stripes(pub StripesSettings);

impl Augment for Stripes {
    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        if rng.chance(self.0.p) {
            Bands::draw(&self.0, &image, rng).paint(&mut image);
        }
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
    fn draw(settings: &StripesSettings, image: &RgbImage, rng: &mut Stream) -> Self {
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
