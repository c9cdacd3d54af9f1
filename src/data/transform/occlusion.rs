//! Something in front of the object: a rectangle of one grey, or of blocks of grey like a printed label.
//!
//! Unlike erasing, which leaves the neutral colour after standardisation, it has a colour, edges and a texture.

use super::Augment;
use super::paint::shorter_side;
use super::patch::Patch;
use crate::config::OcclusionSettings;
use crate::rng::Stream;
use image::{Rgb, RgbImage};

/// Side of a label's blocks as a fraction of the image's shorter side.
const BLOCK: f32 = 0.02;

pub(super) struct Occlusion(pub OcclusionSettings);

impl Augment for Occlusion {
    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        if !rng.chance(self.0.p) {
            return image;
        }
        let size = (image.width() as usize, image.height() as usize);
        let Some(patch) = Patch::draw(size, self.0.area, self.0.ratio, rng) else { return image };
        let levels = [rng.below(256) as u8, rng.below(256) as u8];
        let printed = rng.chance(0.5);
        let block = (BLOCK * shorter_side(&image)).round().max(1.0) as usize;
        let columns = patch.width.div_ceil(block);
        let blocks: Vec<u8> = (0..columns * patch.height.div_ceil(block))
            .map(|_| levels[usize::from(printed && rng.chance(0.5))])
            .collect();
        for y in 0..patch.height {
            for x in 0..patch.width {
                let level = blocks[y / block * columns + x / block];
                image.put_pixel((patch.left + x) as u32, (patch.top + y) as u32, Rgb([level; 3]));
            }
        }
        image
    }
}
