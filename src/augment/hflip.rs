//! Left-right flip.

use super::Augment;
use crate::rng::Stream;
use image::{RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Probability of a left-right flip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HorizontalFlip(#[schemars(range(min = 0.0, max = 1.0))] pub f64);

impl Augment for HorizontalFlip {
    const PREVIEWED: bool = false;

    fn probability(&mut self) -> &mut f64 {
        &mut self.0
    }

    fn apply(&self, mut image: RgbImage, _: &mut Stream) -> RgbImage {
        imageops::flip_horizontal_in_place(&mut image);
        image
    }
}
