//! Flips, and rotations by 90, 180 or 270 degrees, each as likely as the others: no interpolation, no lost corner. An image
//! that is not square keeps its shape: it is turned by 180 degrees.

use super::Augment;
use crate::rng::Stream;
use image::{RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares an operation that is nothing but its probability, with what it does to an image.
macro_rules! turn {
    ($(#[$doc:meta])* $name:ident, |$image:ident, $rng:ident| $turned:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(#[schemars(range(min = 0.0, max = 1.0))] pub f64);

        impl Augment for $name {
            const PREVIEWED: bool = false;

            fn dials(&mut self) -> (&mut f64, f64) {
                (&mut self.0, 1.0)
            }

            fn apply(&self, $image: RgbImage, $rng: &mut Stream) -> RgbImage {
                $turned
            }
        }
    };
}

turn!(
    /// Probability of a left-right flip.
    HorizontalFlip,
    |image, _rng| imageops::flip_horizontal(&image)
);
turn!(
    /// Probability of an up-down flip.
    VerticalFlip,
    |image, _rng| imageops::flip_vertical(&image)
);
turn!(
    /// Probability of turning the image at all.
    Rotate90,
    |image, rng| match rng.below(3) {
        0 if image.width() == image.height() => imageops::rotate90(&image),
        2 if image.width() == image.height() => imageops::rotate270(&image),
        _ => imageops::rotate180(&image),
    }
);
