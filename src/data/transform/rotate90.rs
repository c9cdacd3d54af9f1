//! Rotation by 90, 180 or 270 degrees, each as likely as the others: no interpolation, no lost corner.

use super::Augment;
use crate::rng::Stream;
use image::{RgbImage, imageops};

pub(super) struct Rotate90 {
    /// Probability of turning the image at all.
    pub p: f64,
}

impl Augment for Rotate90 {
    fn apply(&self, image: RgbImage, rng: &mut Stream) -> RgbImage {
        if !rng.chance(self.p) {
            return image;
        }
        match rng.below(3) {
            0 => imageops::rotate90(&image),
            1 => imageops::rotate180(&image),
            _ => imageops::rotate270(&image),
        }
    }
}
