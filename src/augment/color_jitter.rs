//! Colour jitter: brightness, contrast, saturation and hue in random order, as in torchvision's `ColorJitter`.
//!
//! Each step rounds to 8 bits, where Pillow and torchvision truncate, so a step differs from theirs by at most one
//! level but does not darken. Hue is turned in floating point.

use super::Augment;
use crate::pixels::luma;
use crate::rng::Stream;
use image::{Rgb, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `augment.color`: factors drawn from max(0, 1 - x) to 1 + x (torchvision's `ColorJitter`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColorJitter {
    // Mild changes of lighting; hue carries meaning in many materials, so it stays.
    /// Probability of jittering an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.6))]
    pub p: f64,
    /// Strength of the brightness change: factors from 1 - x to 1 + x.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub brightness: f64,
    /// Strength of the contrast change.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub contrast: f64,
    /// Strength of the saturation change.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub saturation: f64,
    /// Strength of the hue change in turns of the colour wheel.
    #[schemars(range(min = 0.0, max = 0.5), extend("default" = 0.0))]
    pub hue: f64,
}

#[derive(Debug, Clone, Copy)]
enum Adjustment {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    /// In turns of the colour circle.
    Hue(f32),
}

impl Augment for ColorJitter {
    const NUMBER: &'static [&'static str] = &["brightness", "contrast", "saturation"];

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, self.brightness + self.contrast + self.saturation + self.hue)
    }

    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        let Self { brightness, contrast, saturation, hue, .. } = *self;
        let mut factor = |strength: f64| rng.range((1.0 - strength).max(0.0), 1.0 + strength) as f32;
        let (brightness, contrast, saturation) = (factor(brightness), factor(contrast), factor(saturation));
        let turn = rng.range(-hue, hue) as f32;
        let mut steps = [
            Adjustment::Brightness(brightness),
            Adjustment::Contrast(contrast),
            Adjustment::Saturation(saturation),
            Adjustment::Hue(turn),
        ];
        rng.shuffle(&mut steps);
        for step in steps {
            step.apply(&mut image);
        }
        image
    }
}

impl Adjustment {
    fn apply(self, image: &mut RgbImage) {
        match self {
            // A factor of 1 and no turn leave every pixel as it is.
            Self::Brightness(1.0) | Self::Contrast(1.0) | Self::Saturation(1.0) | Self::Hue(0.0) => {}
            Self::Brightness(factor) => blend(image, factor, |_| 0.0),
            Self::Contrast(factor) => {
                let mean = mean_luma(image);
                blend(image, factor, |_| mean);
            }
            Self::Saturation(factor) => blend(image, factor, luma),
            Self::Hue(turn) => image.pixels_mut().for_each(|pixel| *pixel = turn_hue(*pixel, turn)),
        }
    }
}

/// From a pixel's `base` (factor 0) through its values (factor 1) and beyond.
fn blend(image: &mut RgbImage, factor: f32, base: impl Fn(Rgb<u8>) -> f32) {
    for pixel in image.pixels_mut() {
        let base = base(*pixel);
        let blended = |value: u8| (base + factor * (f32::from(value) - base)).round().clamp(0.0, 255.0) as u8;
        pixel.0 = pixel.0.map(blended);
    }
}

fn mean_luma(image: &RgbImage) -> f32 {
    let count = (image.as_raw().len() / 3).max(1) as f64;
    (image.pixels().map(|&pixel| f64::from(luma(pixel))).sum::<f64>() / count).round() as f32
}

/// Turns the hue of the hexagonal HSV model.
///
/// With value v and chroma c, channel n of (r, g, b) = (5, 3, 1) is v - c * clamp(min(k, 4 - k), 0, 1) where
/// k = (n + 6 h) mod 6.
fn turn_hue(Rgb([r, g, b]): Rgb<u8>, turn: f32) -> Rgb<u8> {
    let value = r.max(g).max(b);
    let chroma = f32::from(value - r.min(g).min(b));
    if chroma == 0.0 {
        return Rgb([r, g, b]);
    }
    let difference = |a: u8, b: u8| (f32::from(a) - f32::from(b)) / chroma;
    let sextant = if value == r {
        difference(g, b)
    } else if value == g {
        2.0 + difference(b, r)
    } else {
        4.0 + difference(r, g)
    };
    let turned = sextant + 6.0 * turn;
    let channel = |n: f32| {
        let k = (n + turned).rem_euclid(6.0);
        (f32::from(value) - chroma * k.min(4.0 - k).clamp(0.0, 1.0)).round() as u8
    };
    Rgb([channel(5.0), channel(3.0), channel(1.0)])
}

#[cfg(test)]
#[path = "color_jitter_tests.rs"]
mod tests;
