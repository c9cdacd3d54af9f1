//! Blur: Gaussian, as from a lens out of focus, or along a line, as from an object that moved.

use super::Augment;
use super::paint::{amplitude, direction, shorter_side, to_level};
use crate::rng::Stream;
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Standard deviations below this, in pixels, change no 8-bit value by more than a level or two.
const SMALLEST: f32 = 0.2;

/// `augment.blur`: Gaussian, or along a line as of motion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    // At most about a pixel of 224: small defects blur away first.
    /// Probability of blurring an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub p: f64,
    /// Largest standard deviation as a fraction of the shorter side: 0.005 are 1.1 pixels of 224.
    #[schemars(range(min = 0.0, max = 0.05), extend("default" = 0.005))]
    pub strength: f64,
}

/// A pixel's share of another pixel at an offset.
type Tap = ((i32, i32), f32);

impl Augment for Blur {
    const FLAW: Option<fn(f64) -> Self> = Some(|strength| Self { p: 1.0, strength: 0.04 * strength });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, self.strength)
    }

    fn apply(&self, image: RgbImage, rng: &mut Stream) -> RgbImage {
        let deviation = amplitude(self.strength, rng) * shorter_side(&image);
        let along = direction(rng);
        let moved = rng.chance(0.5);
        if deviation < SMALLEST || image.as_raw().is_empty() {
            return image;
        }
        if moved {
            return convolve(&image, &line(deviation, along));
        }
        let taps = gaussian(deviation);
        let across: Vec<Tap> = taps.iter().map(|&(at, weight)| ((at, 0), weight)).collect();
        let down: Vec<Tap> = taps.iter().map(|&(at, weight)| ((0, at), weight)).collect();
        convolve(&convolve(&image, &across), &down)
    }
}

/// Weights of a Gaussian at whole offsets, up to three standard deviations.
fn gaussian(deviation: f32) -> Vec<(i32, f32)> {
    let reach = (3.0 * deviation).ceil() as i32;
    let weight = |at: i32| (-0.5 * (at as f32 / deviation).powi(2)).exp();
    let sum: f32 = (-reach..=reach).map(weight).sum();
    (-reach..=reach).map(|at| (at, weight(at) / sum)).collect()
}

/// Weights of a straight line through the middle with the given standard deviation along it: its points, each shared
/// out among the four pixels around.
fn line(deviation: f32, (dx, dy): (f32, f32)) -> Vec<Tap> {
    // A uniform distribution of length l has the variance l^2 / 12.
    let half = 3f32.sqrt() * deviation;
    let points = (4.0 * half).ceil() as i32 + 1;
    let reach = half.ceil() as i32 + 1;
    let side = (2 * reach + 1) as usize;
    let mut weights = vec![0f32; side * side];
    for i in 0..points {
        let t = half * ((2 * i) as f32 / (points - 1).max(1) as f32 - 1.0);
        let (x, y) = (t * dx + reach as f32, t * dy + reach as f32);
        let (column, row) = (x as usize, y as usize);
        let (right, low) = (x - column as f32, y - row as f32);
        for (at, weight) in [
            (row * side + column, (1.0 - right) * (1.0 - low)),
            (row * side + column + 1, right * (1.0 - low)),
            ((row + 1) * side + column, (1.0 - right) * low),
            ((row + 1) * side + column + 1, right * low),
        ] {
            weights[at] += weight / points as f32;
        }
    }
    let offset = |at: usize| at as i32 - reach;
    let taps = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
    taps.map(|(at, &weight)| ((offset(at % side), offset(at / side)), weight)).collect()
}

/// The weighted sum of shifted copies; the pixels of the border are repeated beyond it.
fn convolve(image: &RgbImage, taps: &[Tap]) -> RgbImage {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let reach = |axis: fn(&Tap) -> i32| taps.iter().map(|tap| axis(tap).unsigned_abs() as usize).max().unwrap_or(0);
    let (rx, ry) = (reach(|tap| tap.0.0), reach(|tap| tap.0.1));
    let padded: Vec<Vec<f32>> = (0..height).map(|y| padded_row(image, y, rx)).collect();
    let mut blurred = RgbImage::new(image.width(), image.height());
    let mut sums = vec![0f32; 3 * width];
    for (y, row) in blurred.chunks_exact_mut(3 * width).enumerate() {
        sums.fill(0.0);
        for &((dx, dy), weight) in taps {
            // Within the padding by the choice of the reaches.
            let source = (y + ry).saturating_add_signed(dy as isize).saturating_sub(ry).min(height - 1);
            let first = 3 * rx.saturating_add_signed(dx as isize);
            let values = &padded[source][first..first + 3 * width];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        row.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = to_level(sum));
    }
    blurred
}

/// A row with its first and last pixel repeated `reach` times.
fn padded_row(image: &RgbImage, y: usize, reach: usize) -> Vec<f32> {
    let width = image.width() as usize;
    let columns = (0..width + 2 * reach).map(|x| x.saturating_sub(reach).min(width - 1));
    columns.flat_map(|x| image.get_pixel(x as u32, y as u32).0).map(f32::from).collect()
}
