//! Scratches: thin, slightly bent, antialiased lines that fade at their ends; darker or lighter than the surface.

use super::Augment;
use super::paint::{around, count, direction, point, shade, shorter_side, signed_amplitude, smooth_step};
use crate::rng::Stream;
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Straight pieces that a curve is drawn with: at the strongest bend they leave it by less than a tenth of a pixel.
const PIECES: usize = 24;
/// Thinnest and thickest line as a fraction of the shorter side.
const WIDTH: [f64; 2] = [0.002, 0.007];
/// Largest offset of the curve's control point, as a fraction of its length.
const BEND: f64 = 0.2;

/// `augment.scratches`: thin, slightly bent lines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scratches {
    /// Probability of scratching an image.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.3))]
    pub p: f64,
    /// Largest share of the way to black or white.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.7))]
    pub strength: f64,
    /// Fewest and most scratches.
    #[schemars(inner(range(max = 100)), extend("default" = [1, 3]))]
    pub count: [u32; 2],
    /// Shortest and longest as fractions of the shorter side.
    #[schemars(inner(range(min = 1e-3, max = 1.0)), extend("default" = [0.1, 0.5]))]
    pub length: [f64; 2],
}

impl Augment for Scratches {
    const FLAW: Option<fn(f64) -> Self> = Some(|strength| Self { p: 1.0, strength, count: [4, 8], length: [0.2, 0.8] });

    fn dials(&mut self) -> (&mut f64, f64) {
        (&mut self.p, self.strength)
    }

    fn apply(&self, mut image: RgbImage, rng: &mut Stream) -> RgbImage {
        // The strongest share that any scratch has at a pixel: pieces overlap at their joints.
        let mut shares = vec![0f32; image.width() as usize * image.height() as usize];
        for _ in 0..count(self.count, rng) {
            Scratch::draw(self, &image, rng).cover(&image, &mut shares);
        }
        for (pixel, &share) in image.pixels_mut().zip(&shares) {
            if share != 0.0 {
                shade(pixel, share);
            }
        }
        image
    }
}

/// A quadratic Bezier curve.
struct Scratch {
    ends: [(f32, f32); 2],
    control: (f32, f32),
    width: f32,
    share: f32,
}

impl Scratch {
    fn draw(settings: &Scratches, image: &RgbImage, rng: &mut Stream) -> Self {
        let share = signed_amplitude(settings.strength, rng);
        let side = shorter_side(image);
        let length = rng.range(settings.length[0], settings.length[1]) as f32 * side;
        let width = (rng.range(WIDTH[0], WIDTH[1]) as f32 * side).max(1.0);
        let (middle, along) = (point(image, rng), direction(rng));
        let bend = rng.range(-BEND, BEND) as f32 * length;
        let half = length / 2.0;
        Self {
            ends: [
                (middle.0 - half * along.0, middle.1 - half * along.1),
                (middle.0 + half * along.0, middle.1 + half * along.1),
            ],
            control: (middle.0 - bend * along.1, middle.1 + bend * along.0),
            width,
            share,
        }
    }

    /// The point at `t` from 0 to 1.
    fn at(&self, t: f32) -> (f32, f32) {
        let mix = |a: f32, b: f32, c: f32| (1.0 - t) * (1.0 - t) * a + 2.0 * t * (1.0 - t) * b + t * t * c;
        let [start, end] = self.ends;
        (mix(start.0, self.control.0, end.0), mix(start.1, self.control.1, end.1))
    }

    fn cover(&self, image: &RgbImage, shares: &mut [f32]) {
        for piece in 0..PIECES {
            let (from, to) = (piece as f32 / PIECES as f32, (piece + 1) as f32 / PIECES as f32);
            let middle = f32::midpoint(from, to);
            let fade = smooth_step(5.0 * middle.min(1.0 - middle) + 0.1);
            self.cover_piece(image, [self.at(from), self.at(to)], self.share * fade, shares);
        }
    }

    fn cover_piece(&self, image: &RgbImage, [a, b]: [(f32, f32); 2], share: f32, shares: &mut [f32]) {
        let middle = (f32::midpoint(a.0, b.0), f32::midpoint(a.1, b.1));
        let length = ((b.0 - a.0).powi(2) + (b.1 - a.1).powi(2)).sqrt();
        let (xs, ys) = around(image, middle, length / 2.0 + self.width);
        for y in ys {
            for x in xs.clone() {
                // A box filter of one pixel, seen from straight above the line.
                let distance = distance((x as f32 + 0.5, y as f32 + 0.5), [a, b]);
                let share = share * (self.width / 2.0 + 0.5 - distance).clamp(0.0, 1.0);
                let strongest = &mut shares[y as usize * image.width() as usize + x as usize];
                if share.abs() > strongest.abs() {
                    *strongest = share;
                }
            }
        }
    }
}

/// From a point to a straight piece.
fn distance(p: (f32, f32), [a, b]: [(f32, f32); 2]) -> f32 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let square = (dx * dx + dy * dy).max(1e-12);
    let t = (((p.0 - a.0) * dx + (p.1 - a.1) * dy) / square).clamp(0.0, 1.0);
    ((p.0 - a.0 - t * dx).powi(2) + (p.1 - a.1 - t * dy).powi(2)).sqrt()
}
