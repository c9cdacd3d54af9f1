//! Rectangles of random position, area and shape.

use super::Window;
use crate::rng::Stream;

/// Draws before none is found.
const TRIES: usize = 10;

/// Two sides: their product uniform in a range of fractions of so many pixels, the logarithm of first / second uniform in
/// another; none when none of them `fits`.
pub(super) fn sides(
    pixels: f64,
    area: [f64; 2],
    ratio: [f64; 2],
    fits: impl Fn([u32; 2]) -> bool,
    rng: &mut Stream,
) -> Option<[u32; 2]> {
    (0..TRIES).find_map(|_| {
        let area = pixels * rng.range(area[0], area[1]);
        let ratio = rng.range(ratio[0].ln(), ratio[1].ln()).exp();
        let sides = [area * ratio, area / ratio].map(|squared| squared.sqrt().round() as u32);
        fits(sides).then_some(sides)
    })
}

/// A rectangle, which may be empty, with the draws of torchvision's `RandomErasing`: `ratio` is of height / width. None when
/// nothing fits.
pub(super) fn patch((width, height): (u32, u32), area: [f64; 2], ratio: [f64; 2], rng: &mut Stream) -> Option<Window> {
    let pixels = f64::from(width) * f64::from(height);
    let [h, w] = sides(pixels, area, ratio, |[h, w]| h < height && w < width, rng)?;
    let y = rng.below(u64::from(height - h) + 1) as u32;
    let x = rng.below(u64::from(width - w) + 1) as u32;
    Some(Window { x, y, width: w, height: h })
}
