//! Random erasing (Zhong et al. 2017) of standardised pixels, with the draws of torchvision's `RandomErasing`.
//!
//! The rectangle becomes zero, which after standardisation is the mean colour: it hides without adding a texture
//! that could be mistaken for a defect.

use super::patch::patch;
use super::{Augmentation, Effect};
use crate::rng::Stream;
use crate::size::Size;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `augment.erasing`: random erasing (Zhong et al. 2017).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Erasing {
    // Small patches: larger ones hide whole defects.
    /// Probability of erasing a rectangle.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.3))]
    pub p: f64,
    /// Smallest and largest area as fractions of the image.
    #[schemars(inner(range(min = 1e-4, max = 1.0)), extend("default" = [0.02, 0.1]))]
    pub area: [f64; 2],
    /// Smallest and largest height / width.
    #[schemars(inner(range(min = 0.01, max = 100.0)), extend("default" = [0.3, 3.3]))]
    pub ratio: [f64; 2],
}

impl Augmentation for Erasing {
    fn acts(&self) -> bool {
        self.p > 0.0
    }

    fn certain(self) -> Option<Self> {
        Some(Self { p: 1.0, ..self })
    }

    fn step(self) -> Effect {
        Effect::Pixels(self)
    }
}

impl Erasing {
    /// Erases in standardised pixels, shape (3, height, width).
    pub fn apply(&self, pixels: &mut [f32], size: Size, rng: &mut Stream) {
        if size.area() == 0 || !rng.chance(self.p) {
            return;
        }
        let Some(patch) = patch((size.width as u32, size.height as u32), self.area, self.ratio, rng) else { return };
        for plane in pixels.chunks_exact_mut(size.area()) {
            for row in plane.chunks_exact_mut(size.width).skip(patch.y as usize).take(patch.height as usize) {
                row[patch.x as usize..(patch.x + patch.width) as usize].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn erases_one_rectangle_of_the_drawn_area(side in 16usize..80, seed: u64) {
            let erasing = Erasing { p: 1.0, area: [0.02, 0.1], ratio: [0.3, 3.3] };
            let mut pixels = vec![1.0; 3 * side * side];
            erasing.apply(&mut pixels, side.into(), &mut Stream::new(seed, Purpose::Augment, &[]));
            let planes: Vec<&[f32]> = pixels.chunks_exact(side * side).collect();
            prop_assert!(planes.iter().all(|plane| *plane == planes[0]), "all channels alike");
            let erased: Vec<usize> = (0..side * side).filter(|&at| planes[0][at] == 0.0).collect();
            let rows = erased.iter().map(|at| at / side).collect::<std::collections::BTreeSet<_>>().len();
            let columns = erased.iter().map(|at| at % side).collect::<std::collections::BTreeSet<_>>().len();
            prop_assert_eq!(rows * columns, erased.len());
            let share = erased.len() as f64 / (side * side) as f64;
            prop_assert!((0.005..=0.15).contains(&share), "{}", share);
        }
    }

    #[test]
    fn zero_probability_erases_nothing() {
        let erasing = Erasing { p: 0.0, area: [0.02, 0.1], ratio: [0.3, 3.3] };
        let mut pixels = vec![1.0; 3 * 32 * 32];
        erasing.apply(&mut pixels, 32.into(), &mut Stream::new(1, Purpose::Augment, &[]));
        assert!(pixels.iter().all(|&x| x == 1.0));
    }
}
