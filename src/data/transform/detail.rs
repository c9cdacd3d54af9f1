//! What a resize leaves of a picture's detail, by the spectrum.
//!
//! A picture of s pixels holds no frequency above s / 2 cycles across it: what lies beyond is lost however it is resized.
//! Detail is what changes from pixel to pixel, so each frequency counts by the power of the gradient there, f² P(f); counted
//! by power alone the light's slow changes would outweigh every edge. The spectrum is estimated on windowed patches (Welch
//! 1967) of the luma. Sensor noise counts too: it cannot be told from a fine texture.

use super::Geometry;
use crate::linalg::fft::{Complex32, Fft, plan};
use crate::pixels::luma;
use image::RgbImage;
use std::f32::consts::PI;

/// Side of a patch in pixels.
const PATCH: usize = 128;
/// Most patches in each direction.
const PATCHES: usize = 6;

/// The share of a picture's detail that lies beyond what remains at each geometry, from 0 to 1; none for a flat or very
/// small picture.
pub fn lost(image: &RgbImage, geometries: &[Geometry]) -> Option<Vec<f64>> {
    let size = image.dimensions();
    let side = PATCH.min(size.0.min(size.1) as usize);
    if side < PATCH / 4 {
        return None;
    }
    let power = spectrum(image, side);
    // Cycles a pixel, from -1/2 to 1/2.
    let frequency = |index: usize| {
        let index = if index > side / 2 { side - index } else { index };
        index as f64 / side as f64
    };
    let detail = |keep: &dyn Fn(f64, f64) -> bool| -> f64 {
        let at = |index: usize| (frequency(index % side), frequency(index / side));
        let cells = power.iter().enumerate().map(|(index, &power)| (at(index), f64::from(power)));
        cells.filter(|((x, y), _)| keep(*x, *y)).map(|((x, y), power)| (x * x + y * y) * power).sum()
    };
    let all = detail(&|_, _| true);
    let lost = |geometry: &Geometry| {
        let (across, down) = geometry.scales(size);
        1.0 - detail(&|x, y| x <= across / 2.0 && y <= down / 2.0) / all
    };
    // Rounding alone is not detail.
    let flat = all < 1e-3 * (side * side) as f64;
    (!flat).then(|| geometries.iter().map(|geometry| lost(geometry).max(0.0)).collect())
}

/// The mean power of patches (side, side), row by row.
fn spectrum(image: &RgbImage, side: usize) -> Vec<f32> {
    let hann: Vec<f32> = (0..side).map(|i| 0.5 - 0.5 * (2.0 * PI * (i as f32 + 0.5) / side as f32).cos()).collect();
    let [fft, _] = plan(side);
    let starts = |length: u32| {
        let room = length as usize - side;
        let count = (length as usize / side).clamp(1, PATCHES);
        (0..count).map(move |i| if count == 1 { room / 2 } else { i * room / (count - 1) })
    };
    let mut power = vec![0.0; side * side];
    for top in starts(image.height()) {
        for left in starts(image.width()) {
            let values: Vec<f32> = (0..side * side)
                .map(|i| luma(*image.get_pixel((left + i % side) as u32, (top + i / side) as u32)))
                .collect();
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let weighed =
                |(i, value): (usize, &f32)| Complex32::new((value - mean) * hann[i % side] * hann[i / side], 0.0);
            let transformed = transform(values.iter().enumerate().map(weighed).collect(), side, fft.as_ref());
            power.iter_mut().zip(transformed).for_each(|(sum, value)| *sum += value.norm_sqr());
        }
    }
    power
}

/// The two-dimensional transform, rows and columns exchanged.
fn transform(mut values: Vec<Complex32>, side: usize, fft: &dyn Fft<f32>) -> Vec<Complex32> {
    fft.process(&mut values);
    let mut turned: Vec<Complex32> = (0..side * side).map(|i| values[i % side * side + i / side]).collect();
    fft.process(&mut turned);
    (0..side * side).map(|i| turned[i % side * side + i / side]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ResizeMode;
    use crate::data::transform::Interpolation;
    use image::Rgb;

    fn squash(image_size: usize) -> Geometry {
        Geometry::squash(image_size, Interpolation::Bilinear)
    }

    /// Waves of so many cycles across and down a picture.
    fn waves(size: (u32, u32), cycles: (f32, f32)) -> RgbImage {
        RgbImage::from_fn(size.0, size.1, |x, y| {
            let turns = cycles.0 * x as f32 / size.0 as f32 + cycles.1 * y as f32 / size.1 as f32;
            Rgb([(128.0 + 90.0 * (2.0 * PI * turns).sin()) as u8; 3])
        })
    }

    #[test]
    fn a_frequency_is_kept_or_lost_by_the_side_of_the_square() {
        let sides = [squash(100), squash(200), squash(800)];
        for (cycles, expected) in
            [((20.0, 0.0), [0.0; 3]), ((80.0, 0.0), [1.0, 0.0, 0.0]), ((0.0, 140.0), [1.0, 1.0, 0.0])]
        {
            let found = lost(&waves((800, 600), cycles), &sides).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 0.12, "{cycles:?}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn a_wide_image_loses_more_across_than_down() {
        // 60 cycles fit into 200 pixels, 60 cycles within a third of the width do not.
        let across = lost(&waves((1200, 400), (150.0, 0.0)), &[squash(200)]).unwrap()[0];
        let down = lost(&waves((1200, 400), (0.0, 50.0)), &[squash(200)]).unwrap()[0];
        assert!(across > 0.9 && down < 0.1, "{across} {down}");
        let letterbox = Geometry { resize: ResizeMode::Letterbox, ..squash(200) };
        assert!(lost(&waves((1200, 400), (0.0, 50.0)), &[letterbox]).unwrap()[0] > 0.9, "down as well");
    }

    #[test]
    fn noise_is_lost_by_the_gradient_of_its_spectrum() {
        let mut stream = crate::rng::Stream::new(3, crate::rng::Purpose::Split, &[]);
        let noise = RgbImage::from_fn(512, 512, |_, _| Rgb([stream.below(200) as u8; 3]));
        // White noise: the share of f² inside a square of half the side is 1/16.
        let found = lost(&noise, &[squash(256), squash(512)]).unwrap();
        assert!((found[0] - 15.0 / 16.0).abs() < 0.01 && found[1] < 1e-9, "{found:?}");
    }

    #[test]
    fn flat_and_tiny_pictures_have_no_detail() {
        assert_eq!(lost(&RgbImage::from_pixel(300, 300, Rgb([9; 3])), &[squash(64)]), None);
        assert_eq!(lost(&waves((20, 300), (2.0, 2.0)), &[squash(64)]), None);
    }
}
