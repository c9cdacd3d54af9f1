//! Rotation by 90, 180 or 270 degrees, each as likely as the others: no interpolation, no lost corner.

use super::Augment;
use crate::rng::Stream;
use image::{RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Probability of turning the image at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Rotate90(#[schemars(range(min = 0.0, max = 1.0))] pub f64);

impl Augment for Rotate90 {
    const PREVIEWED: bool = false;

    fn probability(&mut self) -> &mut f64 {
        &mut self.0
    }

    fn apply(&self, image: RgbImage, rng: &mut Stream) -> RgbImage {
        match rng.below(3) {
            0 => imageops::rotate90(&image),
            1 => imageops::rotate180(&image),
            _ => imageops::rotate270(&image),
        }
    }
}
