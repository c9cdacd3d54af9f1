//! Something in front of the object: a rectangle of one grey, or of blocks of grey like a printed label.
//!
//! Unlike erasing, which leaves the neutral colour after standardisation, it has a colour, edges and a texture.

use super::Augment;
use super::paint::shorter_side;
use super::patch::patch;
use crate::rng::Stream;
use image::{Rgb, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Side of a label's blocks as a fraction of the image's shorter side.
const BLOCK: f32 = 0.02;

/// `augment.occlusion`: a solid or mottled rectangle in front of the object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Occlusion {
    // Smaller than erasing's: it hides, and its edges look like something.
    /// Probability of covering a part of an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.3))]
    pub p: f64,
    /// Smallest and largest area as fractions of the image.
    #[schemars(inner(range(min = 1e-4, max = 1.0)), extend("default" = [0.01, 0.05]))]
    pub area: [f64; 2],
    /// Smallest and largest height / width.
    #[schemars(inner(range(min = 0.01, max = 100.0)), extend("default" = [0.3, 3.3]))]
    pub ratio: [f64; 2],
}

impl Augment for Occlusion {
    const FLAW: Option<fn(f64) -> Self> =
        Some(|strength| Self { p: 1.0, area: [0.4 * strength; 2], ratio: [0.5, 2.0] });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, 1.0)
    }

    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        let Some(patch) = patch(image.dimensions(), self.area, self.ratio, rng) else { return image };
        let levels = [rng.below(256) as u8, rng.below(256) as u8];
        let printed = rng.chance(0.5);
        let block = (BLOCK * shorter_side(&image)).round().max(1.0) as u32;
        let columns = patch.width.div_ceil(block);
        let blocks: Vec<u8> = (0..columns * patch.height.div_ceil(block))
            .map(|_| levels[usize::from(printed && rng.chance(0.5))])
            .collect();
        for y in 0..patch.height {
            for x in 0..patch.width {
                let level = blocks[(y / block * columns + x / block) as usize];
                image.put_pixel(patch.x + x, patch.y + y, Rgb([level; 3]));
            }
        }
        image
    }
}
