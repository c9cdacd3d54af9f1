//! Sharpness-aware minimisation (Foret et al. 2021, algorithm 1): the gradient is taken a little uphill, so that
//! training prefers flat minima.

use super::snapshot::with_values;
use crate::backbone::Params;
use crate::error::Result;
use crate::optim::gradients::Gradients;
use candle_core::Tensor;

/// Keeps a gradient of 0 from being divided by its norm.
const SMALLEST_NORM: f64 = 1e-12;

/// Runs `pass` with the trainable parameters moved by `radius` along their gradients, whose norm over all of them is
/// `norm`, then puts them back bit for bit.
///
/// # Errors
/// Those of `pass`, and those of the device.
pub fn uphill<R>(
    params: &Params,
    gradients: &Gradients,
    norm: f64,
    radius: f64,
    pass: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let scale = radius / (norm + SMALLEST_NORM);
    let moved = |name: &str, value: &Tensor| value + (gradients.get(name)? * scale)?;
    with_values(params, moved, pass)
}
