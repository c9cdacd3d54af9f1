//! Gradient descent with momentum and gains.

use super::affinities::Affinities;
use super::gradient::{Repulsion, attraction, divergence};
use crate::error::{Error, Result};
use std::ops::ControlFlow;

/// Iterations between two calls of the observer.
const REPORT_EVERY: usize = 50;
/// A gain never falls below this.
const LEAST_GAIN: f64 = 0.01;

/// Iterations of the first phase, in which clusters form under exaggerated attraction.
const EARLY_ITERATIONS: usize = 250;
/// Factor of the attraction in the first phase.
pub const EXAGGERATION: f64 = 12.0;

/// Called every 50 iterations with the iteration, how many there are, and the KL divergence as the repulsion in use
/// estimates it; a break ends the descent there.
pub type DescentObserver<'a> = dyn FnMut(usize, usize, f64) -> ControlFlow<()> + 'a;

/// Moves `points` downhill with a step for each phase; returns the iterations done.
///
/// # Errors
/// When a coordinate is no longer finite.
pub fn descend(
    points: &mut [[f64; 2]],
    affinities: &Affinities,
    repulsion: &mut dyn Repulsion,
    (iterations, [early_rate, late_rate]): (usize, [f64; 2]),
    observer: &mut DescentObserver<'_>,
) -> Result<usize> {
    let n = points.len();
    let mut motion = vec![Motion::default(); n];
    let mut current = vec![[0f32; 2]; n];
    let (mut pull, mut push) = (vec![[0f32; 2]; n], vec![[0f32; 2]; n]);
    for iteration in 0..iterations {
        let early = iteration < EARLY_ITERATIONS;
        let (exaggeration, momentum, rate) =
            if early { (EXAGGERATION, 0.5, early_rate) } else { (1.0, 0.8, late_rate) };
        round(points, &mut current);
        attraction(affinities, &current, &mut pull);
        let z = repulsion.forces(&current, &mut push);
        for (((point, motion), pull), push) in points.iter_mut().zip(&mut motion).zip(&pull).zip(&push) {
            let gradient = [0, 1].map(|a| 4.0 * (exaggeration * f64::from(pull[a]) - f64::from(push[a]) / z));
            motion.step(point, gradient, momentum, rate);
        }
        if !centre(points) {
            return Err(diverged(iteration + 1, rate));
        }
        if (iteration + 1) % REPORT_EVERY == 0 {
            let kl = divergence(affinities, &current, z);
            if observer(iteration + 1, iterations, kl).is_break() {
                return Ok(iteration + 1);
            }
        }
    }
    Ok(iterations)
}

/// How one point moves: velocity and gain on each axis.
#[derive(Clone, Copy)]
struct Motion {
    velocity: [f64; 2],
    gain: [f64; 2],
}

impl Default for Motion {
    fn default() -> Self {
        Self { velocity: [0.0; 2], gain: [1.0; 2] }
    }
}

impl Motion {
    /// One step. A gain grows while the gradient keeps its sign and shrinks when it turns (Jacobs 1988).
    fn step(&mut self, point: &mut [f64; 2], gradient: [f64; 2], momentum: f64, rate: f64) {
        for axis in 0..2 {
            let onwards = self.velocity[axis] * gradient[axis] < 0.0;
            let gain = if onwards { self.gain[axis] + 0.2 } else { self.gain[axis] * 0.8 };
            self.gain[axis] = gain.max(LEAST_GAIN);
            self.velocity[axis] = momentum * self.velocity[axis] - rate * self.gain[axis] * gradient[axis];
            point[axis] += self.velocity[axis];
        }
    }
}

/// Positions in the precision of the forces.
pub fn round(points: &[[f64; 2]], rounded: &mut [[f32; 2]]) {
    rounded.iter_mut().zip(points).for_each(|(out, point)| *out = point.map(|value| value as f32));
}

/// Moves the mean to the origin; false when a coordinate is not a finite f32.
fn centre(points: &mut [[f64; 2]]) -> bool {
    let mut mean = [0f64; 2];
    points.iter().for_each(|point| (0..2).for_each(|a| mean[a] += point[a]));
    let mean = mean.map(|sum| sum / points.len() as f64);
    points.iter_mut().for_each(|point| (0..2).for_each(|a| point[a] -= mean[a]));
    points.iter().flatten().all(|&value| (value as f32).is_finite())
}

fn diverged(iteration: usize, rate: f64) -> Error {
    Error::Numerics(format!(
        "t-SNE diverged in iteration {iteration}: coordinates are no longer finite at learning rate {rate}"
    ))
}
