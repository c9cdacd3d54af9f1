//! A rectangle of random position, area and shape, with the draws of torchvision's `RandomErasing`.

use crate::rng::Stream;

/// Draws before the image is left as it is.
const TRIES: usize = 10;

/// Rows and columns of an image.
pub(super) struct Patch {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

impl Patch {
    /// Area uniform in a range of fractions of the image, logarithm of height / width uniform in another; none when
    /// nothing fits.
    pub fn draw((width, height): (usize, usize), area: [f64; 2], ratio: [f64; 2], rng: &mut Stream) -> Option<Self> {
        for _ in 0..TRIES {
            let area = (width * height) as f64 * rng.range(area[0], area[1]);
            let aspect = rng.range(ratio[0].ln(), ratio[1].ln()).exp();
            let h = (area * aspect).sqrt().round() as usize;
            let w = (area / aspect).sqrt().round() as usize;
            if h < height && w < width {
                let top = rng.below((height - h) as u64 + 1) as usize;
                let left = rng.below((width - w) as u64 + 1) as usize;
                return Some(Self { top, left, height: h, width: w });
            }
        }
        None
    }
}
