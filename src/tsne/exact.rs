//! Repulsion by the plain sum over all pairs, in f32 vectors: the fastest method for few points.

use super::gradient::Repulsion;
use crate::kernels::simd;
use rayon::prelude::*;

/// Points of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 32;
/// Partial sums: two of the widest registers' worth of points share a division.
const LANES: usize = 16;

/// The sum over all pairs.
#[derive(Default)]
pub struct ExactRepulsion {
    x: Vec<f32>,
    y: Vec<f32>,
    rows: Vec<f64>,
}

impl Repulsion for ExactRepulsion {
    fn forces(&mut self, points: &[[f32; 2]], forces: &mut [[f32; 2]]) -> f64 {
        self.x.clear();
        self.x.extend(points.iter().map(|point| point[0]));
        self.y.clear();
        self.y.extend(points.iter().map(|point| point[1]));
        self.rows.resize(points.len(), 0.0);
        let (x, y) = (&self.x, &self.y);
        let tasks = points.par_chunks(BLOCK).zip(forces.par_chunks_mut(BLOCK)).zip(self.rows.par_chunks_mut(BLOCK));
        tasks.for_each(|((points, forces), rows)| {
            simd(|| {
                for ((point, force), row) in points.iter().zip(forces).zip(rows) {
                    (*force, *row) = on_point(*point, x, y);
                }
            });
        });
        // Each point met itself, at distance 0.
        self.rows.iter().sum::<f64>() - points.len() as f64
    }
}

/// Σⱼ w² (point − j) and Σⱼ w, with w = 1 / (1 + d²).
#[inline(always)]
fn on_point(point: [f32; 2], x: &[f32], y: &[f32]) -> ([f32; 2], f64) {
    let (mut fx, mut fy, mut sum) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let (pairs_x, pairs_y) = (x.chunks_exact(2 * LANES), y.chunks_exact(2 * LANES));
    let tail = pairs_x.remainder().iter().zip(pairs_y.remainder());
    for (lane, (&x, &y)) in tail.enumerate() {
        let (dx, dy) = (point[0] - x, point[1] - y);
        let w = 1.0 / (1.0 + dx * dx + dy * dy);
        sum[lane % LANES] += w;
        fx[lane % LANES] += w * w * dx;
        fy[lane % LANES] += w * w * dy;
    }
    for (x, y) in pairs_x.zip(pairs_y) {
        for lane in 0..LANES {
            let (ax, ay) = (point[0] - x[lane], point[1] - y[lane]);
            let (bx, by) = (point[0] - x[lane + LANES], point[1] - y[lane + LANES]);
            let (a, b) = (1.0 + ax * ax + ay * ay, 1.0 + bx * bx + by * by);
            // One division for two: it is by far the slowest operation here.
            let both = 1.0 / (a * b);
            let (a, b) = (both * b, both * a);
            sum[lane] += a + b;
            let (a, b) = (a * a, b * b);
            fx[lane] += a * ax + b * bx;
            fy[lane] += a * ay + b * by;
        }
    }
    ([fx.iter().sum(), fy.iter().sum()], sum.iter().map(|&w| f64::from(w)).sum())
}
