//! Left-right flip.

use super::{Augment, Operation, Step};
use crate::rng::Stream;
use image::{RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Probability of a left-right flip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HorizontalFlip(#[schemars(range(min = 0.0, max = 1.0))] pub f64);

impl Operation for HorizontalFlip {
    fn acts(&self) -> bool {
        self.0 > 0.0
    }

    /// A flip shows nothing to judge.
    fn certain(self) -> Option<Self> {
        None
    }

    fn step(self) -> Step {
        Step::Image(Box::new(self))
    }
}

impl Augment for HorizontalFlip {
    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        if rng.chance(self.0) {
            imageops::flip_horizontal_in_place(&mut image);
        }
        image
    }
}
