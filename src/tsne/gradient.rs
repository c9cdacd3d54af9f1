//! The two halves of the gradient: attraction along P, repulsion of all pairs.
//!
//! ∂KL/∂yᵢ = 4 (Σⱼ pᵢⱼ wᵢⱼ (yᵢ − yⱼ) − Σⱼ wᵢⱼ² (yᵢ − yⱼ) / Z), w = 1 / (1 + d²), Z = Σ w over pairs i ≠ j
//! (van der Maaten 2014, equation 8). Positions and forces are f32; sums over all points are f64.

use super::affinities::Affinities;
use crate::kernels::simd;
use rayon::prelude::*;

/// Points of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 32;
/// Affinities handled together.
const LANES: usize = 16;

/// A way to compute the repulsion of all pairs.
pub trait Repulsion {
    /// Σⱼ w² (yᵢ − yⱼ) for each point, into `forces`; returns Z.
    fn forces(&mut self, points: &[[f32; 2]], forces: &mut [[f32; 2]]) -> f64;
}

/// Σⱼ p w (yᵢ − yⱼ) for each point, into `forces`.
pub fn attraction(affinities: &Affinities, points: &[[f32; 2]], forces: &mut [[f32; 2]]) {
    forces.par_chunks_mut(BLOCK).enumerate().for_each(|(block, forces)| {
        simd(|| {
            for (row, force) in forces.iter_mut().enumerate() {
                let i = block * BLOCK + row;
                let (columns, values) = affinities.row(i);
                *force = pull(points[i], columns, values, points);
            }
        });
    });
}

#[inline(always)]
fn pull(point: [f32; 2], columns: &[u32], values: &[f32], points: &[[f32; 2]]) -> [f32; 2] {
    let (mut fx, mut fy) = ([0f32; LANES], [0f32; LANES]);
    let (whole_columns, whole_values) = (columns.chunks_exact(LANES), values.chunks_exact(LANES));
    for (&j, &p) in whole_columns.remainder().iter().zip(whole_values.remainder()) {
        let [x, y] = points[j as usize];
        let (dx, dy) = (point[0] - x, point[1] - y);
        let w = p / (1.0 + dx * dx + dy * dy);
        fx[0] += w * dx;
        fy[0] += w * dy;
    }
    for (columns, values) in whole_columns.zip(whole_values) {
        let (mut x, mut y) = ([0f32; LANES], [0f32; LANES]);
        for lane in 0..LANES {
            [x[lane], y[lane]] = points[columns[lane] as usize];
        }
        for lane in 0..LANES {
            let (dx, dy) = (point[0] - x[lane], point[1] - y[lane]);
            let w = values[lane] / (1.0 + dx * dx + dy * dy);
            fx[lane] += w * dx;
            fy[lane] += w * dy;
        }
    }
    [fx.iter().sum(), fy.iter().sum()]
}

/// KL(P‖Q) = Σ p ln(p (1 + d²)) + ln Z, in nats, for P that sums to 1.
pub fn divergence(affinities: &Affinities, points: &[[f32; 2]], z: f64) -> f64 {
    let rows: Vec<f64> = (0..points.len())
        .into_par_iter()
        .with_min_len(BLOCK)
        .map(|i| {
            let (columns, values) = affinities.row(i);
            let terms = columns.iter().zip(values).filter(|&(_, &p)| p > 0.0);
            terms
                .map(|(&j, &p)| {
                    let ([ax, ay], [bx, by]) = (points[i], points[j as usize]);
                    let (dx, dy, p) = (f64::from(ax - bx), f64::from(ay - by), f64::from(p));
                    p * (p * (1.0 + dx * dx + dy * dy)).ln()
                })
                .sum()
        })
        .collect();
    rows.iter().sum::<f64>() + z.ln()
}
