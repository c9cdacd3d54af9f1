//! Fourier transforms, by `rustfft`. It is generic, so the crate that makes a plan compiles it: this one, which tests optimise.

pub use rustfft::Fft;
pub use rustfft::num_complex::Complex32;

use rustfft::FftPlanner;
use std::sync::Arc;

/// The transform of `length` values in place and its inverse, neither of them normalised.
pub fn plan(length: usize) -> [Arc<dyn Fft<f32>>; 2] {
    let mut planner = FftPlanner::new();
    [planner.plan_fft_forward(length), planner.plan_fft_inverse(length)]
}
