//! Where a model looked, laid over the picture that it saw.

use crate::features::EvidenceGrid;
use image::{Rgb, RgbImage, imageops};

/// From the smallest share to the largest: three colours of `ColorBrewer`'s `YlOrRd` (Harrower and Brewer
/// 2003), which keep their order in grey and for every kind of colour vision.
const COLORS: [[f32; 3]; 3] = [[255.0, 237.0, 160.0], [253.0, 141.0, 60.0], [189.0, 0.0, 38.0]];
/// The opacity of the strongest colour; the picture stays recognisable below it.
const OPACITY: f32 = 0.75;

/// The image in grey under the colours of a grid of shares. Colours stretch from the smallest to the largest value, and at
/// least to the value `least`, so that small values stay pale. None when values are not finite.
pub fn heat_map(image: &RgbImage, grid: &EvidenceGrid, least: f32) -> Option<RgbImage> {
    let (columns, rows, shares) = (grid.columns, grid.rows(), &grid.values);
    if shares.is_empty() || !shares.iter().all(|share| share.is_finite()) || image.is_empty() {
        return None;
    }
    let (low, high) = shares.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
    let high = high.max(least);
    let scale = if high > low { 1.0 / (high - low) } else { 0.0 };
    let level = |column: usize, row: usize| (shares[row * columns + column] - low) * scale;
    let grey = imageops::grayscale(image);
    let place = |at: u32, side: u32, places: usize| (at as f32 + 0.5) / side as f32 * places as f32 - 0.5;
    Some(RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let at = (place(x, image.width(), columns), place(y, image.height(), rows));
        let heat = between((columns, rows), at, level);
        blend(grey.get_pixel(x, y).0[0], heat)
    }))
}

/// Draws the outline of a box, of which the left, upper, right and lower edge are given, in a colour that no map has.
pub fn frame(image: &mut RgbImage, [left, upper, right, lower]: [f64; 4]) {
    const BLUE: Rgb<u8> = Rgb([0, 90, 255]);
    let thickness = (image.width() / 200).max(1);
    let inside = |x: u32, y: u32, by: u32| {
        let within =
            |at: u32, from: f64, to: f64| f64::from(at) >= from + f64::from(by) && f64::from(at) + f64::from(by) < to;
        within(x, left, right) && within(y, upper, lower)
    };
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        if inside(x, y, 0) && !inside(x, y, thickness) {
            *pixel = BLUE;
        }
    }
}

/// Bilinear interpolation of the values at the middles of patches; beyond the outermost middles they go on.
fn between((columns, rows): (usize, usize), (x, y): (f32, f32), level: impl Fn(usize, usize) -> f32) -> f32 {
    let split = |at: f32, places: usize| {
        let at = at.clamp(0.0, (places - 1) as f32);
        let first = at as usize;
        (first, (first + 1).min(places - 1), at - first as f32)
    };
    let ((left, right, u), (top, bottom, v)) = (split(x, columns), split(y, rows));
    let along = |row: usize| level(left, row) * (1.0 - u) + level(right, row) * u;
    along(top) * (1.0 - v) + along(bottom) * v
}

fn blend(grey: u8, heat: f32) -> Rgb<u8> {
    let at = heat * (COLORS.len() - 1) as f32;
    let first = (at as usize).min(COLORS.len() - 2);
    let part = at - first as f32;
    let opacity = OPACITY * heat.sqrt();
    Rgb(std::array::from_fn(|channel| {
        let color = COLORS[first][channel] * (1.0 - part) + COLORS[first + 1][channel] * part;
        (f32::from(grey) * (1.0 - opacity) + color * opacity).round() as u8
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heat(image: &RgbImage, shares: &[f32]) -> Option<RgbImage> {
        heat_map(image, &EvidenceGrid::of(shares.len().isqrt().into(), shares.to_vec())?, f32::NEG_INFINITY)
    }

    #[test]
    fn the_hottest_patch_is_the_reddest() {
        let image = RgbImage::from_pixel(40, 40, Rgb([90, 120, 60]));
        let mut shares = [0.1; 16];
        shares[6] = 0.4; // second row, third column
        let map = heat(&image, &shares).unwrap();
        let redness = |&Rgb([r, g, b]): &Rgb<u8>| i32::from(r) - i32::from(g).max(i32::from(b));
        let (x, y, _) = map.enumerate_pixels().max_by_key(|(_, _, pixel)| redness(pixel)).unwrap();
        assert!((20..30).contains(&x) && (10..20).contains(&y), "{x} {y}");
        let Rgb([r, g, b]) = *map.get_pixel(2, 38);
        assert!(r == g && g == b, "cold patches stay grey");
    }

    #[test]
    fn equal_values_leave_the_picture_grey() {
        let image = RgbImage::from_pixel(9, 5, Rgb([10, 200, 30]));
        assert_eq!(heat(&image, &[0.3; 9]).unwrap().dimensions(), (9, 5));
        assert!(heat(&image, &[0.3; 9]).unwrap().pixels().all(|Rgb([r, g, b])| r == g && g == b));
        assert!(heat(&image, &[1.0]).is_some());
    }

    #[test]
    fn what_is_no_grid_of_numbers_is_not_drawn() {
        let image = RgbImage::new(4, 4);
        assert!(heat(&image, &[]).is_none() && heat(&image, &[0.1; 3]).is_none());
        assert!(heat(&image, &[0.1, f32::NAN, 0.1, 0.2]).is_none());
        assert!(heat(&RgbImage::new(0, 3), &[0.1]).is_none());
    }
}
