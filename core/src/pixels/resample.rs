//! Pillow's resampling of 8-bit pictures, bit for bit: antialiased filters in fixed point of 22 bits, one direction after
//! the other, each rounded to 8 bits (`Resample.c` of Pillow 13, as `Image.resize` calls it).
//!
//! What a model answers for a file is then what timm, transformers or ONNX Runtime answer for the file as Pillow reads it.

use super::Window;
use crate::kernels::simd;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::iter::zip;

/// Bits after the point of a weight: 8 are for the levels and 2 for what a cubic overshoots.
const FRACTION: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (FRACTION - 1);
/// Rows that are resampled side by side: as many sums as registers hold.
const ROWS: usize = 16;

/// A filter, once the backbone's own is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle filter, antialiased.
    Bilinear,
    /// Cubic filter with a = -1/2, antialiased.
    Bicubic,
}

/// A window of an image, which must lie inside it, resized to the size; pixels outside the window have no influence. The
/// size must not be empty.
pub fn resample(image: &RgbImage, window: Window, (width, height): (u32, u32), filter: Interpolation) -> RgbImage {
    let across = Weights::new(window.width as usize, width as usize, filter);
    let down = Weights::new(window.height as usize, height as usize, filter);
    let [left, right] = [window.x, window.x + window.width].map(|x| 3 * x as usize);
    let lines = image.as_raw().chunks_exact(3 * image.width() as usize);
    let lines: Vec<&[u8]> =
        lines.skip(window.y as usize).take(window.height as usize).map(|line| &line[left..right]).collect();
    // Pillow 13 starts with the pass that leaves less for the other; the order shows where values are rounded.
    let [fewer_rows, fewer_columns] =
        [(window.height, height), (window.width, width)].map(|(from, to)| i64::from(from) - i64::from(to));
    let vertical_first = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
    let pixels = simd(
        #[inline(always)]
        || {
            if vertical_first {
                horizontal(&split(&vertical(&lines, &down), window.width), &across)
            } else {
                vertical(&split(&horizontal(&lines, &across), width), &down)
            }
        },
    );
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

/// The lines of an image that is so many pixels wide.
fn split(pixels: &[u8], width: u32) -> Vec<&[u8]> {
    pixels.chunks_exact(3 * width as usize).collect()
}

/// The pixels that each pixel of the result is the weighted mean of.
struct Weights {
    /// The first of them, for each.
    first: Vec<usize>,
    /// Their weights, `most` for each; the rest is zero.
    values: Vec<i32>,
    most: usize,
}

impl Weights {
    /// Of `to` pixels in place of `from`.
    fn new(from: usize, to: usize, filter: Interpolation) -> Self {
        let (reach, weight): (f64, fn(f64) -> f64) = match filter {
            Interpolation::Bilinear => (1.0, triangle),
            Interpolation::Bicubic => (2.0, cubic),
        };
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let reach = reach * stretch;
        let most = 2 * reach.ceil() as usize + 1;
        let (mut first, mut weights) = (Vec::with_capacity(to), vec![0; most * to]);
        for (pixel, own) in weights.chunks_exact_mut(most).enumerate() {
            let centre = (pixel as f64 + 0.5) * scale;
            let begin = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let exact = (begin..end).map(|at| weight((at as f64 - centre + 0.5) * (1.0 / stretch)));
            let exact: Vec<f64> = exact.collect();
            let sum: f64 = exact.iter().sum();
            zip(own, exact).for_each(|(own, exact)| *own = (exact / sum * f64::from(1 << FRACTION)).round() as i32);
            first.push(begin);
        }
        Self { first, values: weights, most }
    }

    /// The first pixel and the weights of each pixel of the result.
    fn each(&self) -> impl Iterator<Item = (usize, &[i32])> {
        zip(self.first.iter().copied(), self.values.chunks_exact(self.most))
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// The cubic with a = -1/2.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0)
    } else {
        0.0
    }
}

/// Resamples along the lines: several of them are laid side by side, so that the sums of one column are neighbours.
#[inline(always)]
fn horizontal(lines: &[&[u8]], weights: &Weights) -> Vec<u8> {
    let width = 3 * weights.first.len();
    let mut resampled = vec![0; width * lines.len()];
    let mut columns = vec![[[0; ROWS]; 3]; lines.first().map_or(0, |line| line.len() / 3)];
    for (lines, resampled) in zip(lines.chunks(ROWS), resampled.chunks_mut(ROWS * width)) {
        for (at, line) in lines.iter().enumerate() {
            for (column, pixel) in zip(&mut columns, line.as_chunks::<3>().0) {
                for channel in 0..3 {
                    column[channel][at] = pixel[channel];
                }
            }
        }
        for (x, (first, weights)) in weights.each().enumerate() {
            let (mut red, mut green, mut blue) = ([HALF; ROWS], [HALF; ROWS], [HALF; ROWS]);
            for (column, &weight) in zip(&columns[first..], weights) {
                add(&mut red, weight, &column[0]);
                add(&mut green, weight, &column[1]);
                add(&mut blue, weight, &column[2]);
            }
            for (at, line) in resampled.chunks_exact_mut(width).enumerate() {
                line[3 * x..3 * x + 3].copy_from_slice(&[level(red[at]), level(green[at]), level(blue[at])]);
            }
        }
    }
    resampled
}

/// Resamples from top to bottom.
#[inline(always)]
fn vertical(lines: &[&[u8]], weights: &Weights) -> Vec<u8> {
    let width = lines.first().map_or(0, |line| line.len());
    let mut resampled = vec![0; width * weights.first.len()];
    let mut sums = vec![0; width];
    for (target, (first, weights)) in zip(resampled.chunks_exact_mut(width), weights.each()) {
        sums.fill(HALF);
        for (line, &weight) in zip(&lines[first..], weights) {
            add(&mut sums, weight, line);
        }
        zip(target, &sums).for_each(|(target, &sum)| *target = level(sum));
    }
    resampled
}

/// Adds weighted levels. No sum overflows, by [`FRACTION`]; what wraps needs no check of that.
#[inline(always)]
fn add(sums: &mut [i32], weight: i32, levels: &[u8]) {
    let levels = &levels[..sums.len()];
    for (at, sum) in sums.iter_mut().enumerate() {
        *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(levels[at])));
    }
}

/// The level of a sum.
#[inline(always)]
fn level(sum: i32) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}
