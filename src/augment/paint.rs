//! What the operations that paint on an image share. They use no sine or power, so pictures are the same on every
//! platform.

use crate::rng::Stream;
use image::{Rgb, RgbImage};

/// From half to all of `strength`: an operation that acts can be seen, and the draw does not depend on the strength,
/// so that more of it changes the same picture more.
pub(super) fn amplitude(strength: f64, rng: &mut Stream) -> f32 {
    (strength * rng.range(0.5, 1.0)) as f32
}

/// The same, darker as often as lighter.
pub(super) fn signed_amplitude(strength: f64, rng: &mut Stream) -> f32 {
    let sign = if rng.chance(0.5) { -1.0 } else { 1.0 };
    sign * amplitude(strength, rng)
}

/// A whole number from `low` to `high`, both included.
pub(super) fn count([low, high]: [u32; 2], rng: &mut Stream) -> u32 {
    low + rng.below(u64::from(high.saturating_sub(low)) + 1) as u32
}

/// A vector of length 1, every direction as likely as the others: a point of the disc, pushed to its edge.
pub(super) fn direction(rng: &mut Stream) -> (f32, f32) {
    loop {
        let (x, y) = (rng.range(-1.0, 1.0), rng.range(-1.0, 1.0));
        let square = x * x + y * y;
        if (1e-6..=1.0).contains(&square) {
            let length = square.sqrt();
            return ((x / length) as f32, (y / length) as f32);
        }
    }
}

/// A point of the image, in pixels.
pub(super) fn point(image: &RgbImage, rng: &mut Stream) -> (f32, f32) {
    let mut along = |length: u32| rng.range(0.0, f64::from(length)) as f32;
    (along(image.width()), along(image.height()))
}

/// In pixels: what sizes are fractions of.
pub(super) fn shorter_side(image: &RgbImage) -> f32 {
    image.width().min(image.height()) as f32
}

/// From 0 at 0 to 1 at 1 with level ends.
pub(super) fn smooth_step(x: f32) -> f32 {
    let x = x.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

/// Blends a pixel with white or black by a share: white when `share` is above 0, to black when it is below.
pub(super) fn shade(pixel: &mut Rgb<u8>, share: f32) {
    let target = if share > 0.0 { 255.0 } else { 0.0 };
    let share = share.abs().min(1.0);
    pixel.0 = pixel.0.map(|value| to_level(f32::from(value) + share * (target - f32::from(value))));
}

/// Rounded and cut to 8 bits.
pub(super) fn to_level(value: f32) -> u8 {
    (value + 0.5).clamp(0.0, 255.0) as u8
}

/// The pixels of an image whose coordinates lie within `reach` of a point, first and last in x and in y; empty ranges
/// when there are none.
pub(super) fn around(image: &RgbImage, (x, y): (f32, f32), reach: f32) -> (std::ops::Range<u32>, std::ops::Range<u32>) {
    let range = |at: f32, length: u32| {
        // Conversions saturate, at 0 too.
        let first = (at - reach).floor() as u32;
        first.min(length)..((at + reach).ceil() as u32).saturating_add(1).min(length)
    };
    (range(x, image.width()), range(y, image.height()))
}
