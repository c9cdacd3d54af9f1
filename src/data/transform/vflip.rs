//! Up-down flip.

use super::Augment;
use crate::rng::Stream;
use image::{RgbImage, imageops};

pub(super) struct VerticalFlip {
    /// Probability.
    pub p: f64,
}

impl Augment for VerticalFlip {
    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        if rng.chance(self.p) {
            imageops::flip_vertical_in_place(&mut image);
        }
        image
    }
}
