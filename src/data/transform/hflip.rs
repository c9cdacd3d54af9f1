//! Left-right flip.

use super::Augment;
use crate::rng::Stream;
use image::{RgbImage, imageops};

pub(super) struct HorizontalFlip {
    /// Probability.
    pub p: f64,
}

impl Augment for HorizontalFlip {
    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        if rng.chance(self.p) {
            imageops::flip_horizontal_in_place(&mut image);
        }
        image
    }
}
