//! Activations on the GPU; see [`crate::nn::Activation`] and [`crate::nn::swiglu()`].

use super::{Argument, Grid, Module, Operand, Output, launch, ptx, with};
use candle_core::{CudaStorage, Result, Tensor};

const ACTIVATION: Module = Module { name: "activation", ptx: ptx::ACTIVATION };

/// Four values for each thread: enough blocks for any GPU, and the same for each number of values.
fn grid(count: usize) -> Grid {
    Grid::Blocks(count.div_ceil(1024))
}

/// f(x), where `kind` is a number of `Kind` in `activation.cu`.
///
/// # Errors
/// When the type has no kernel.
pub fn forward(x: Operand<'_>, kind: usize) -> Result<CudaStorage> {
    let (count, dtype, device) = (x.count(), x.dtype(), x.device());
    let mut y = Output::new(device, dtype, count)?;
    let arguments = &mut [x.read(dtype, count)?, y.write()?, Argument::Size(count), Argument::Size(kind)];
    launch(device, ACTIVATION, "activation", dtype, grid(count), arguments)?;
    Ok(y.storage)
}

/// dy f'(x).
///
/// # Errors
/// When shapes or types disagree.
pub fn backward(x: &Tensor, dy: &Tensor, kind: usize) -> Result<Tensor> {
    with([x, dy], |[of_x, of_dy]| {
        let (count, dtype, device) = (of_x.count(), of_x.dtype(), of_x.device());
        let mut dx = Output::new(device, dtype, count)?;
        let (read_x, read_dy) = (of_x.read(dtype, count)?, of_dy.read(dtype, count)?);
        let arguments = &mut [read_x, read_dy, dx.write()?, Argument::Size(count), Argument::Size(kind)];
        launch(device, ACTIVATION, "activation_dx", dtype, grid(count), arguments)?;
        Ok(dx.tensor(x.shape()))
    })
}

/// silu(gate) · value: packed (…, 2 half) to (…, half).
///
/// # Errors
/// When the type has no kernel.
pub fn swiglu(packed: Operand<'_>) -> Result<CudaStorage> {
    let ((rows, width), dtype, device) = (packed.rows(), packed.dtype(), packed.device());
    let half = width / 2;
    let mut y = Output::new(device, dtype, rows * half)?;
    let arguments = &mut [packed.read(dtype, rows * 2 * half)?, y.write()?, Argument::Size(rows), Argument::Size(half)];
    launch(device, ACTIVATION, "swiglu", dtype, Grid::Rows(rows), arguments)?;
    Ok(y.storage)
}

/// The gradient of `packed`.
///
/// # Errors
/// When shapes or types disagree.
pub fn swiglu_backward(packed: &Tensor, dy: &Tensor) -> Result<Tensor> {
    with([packed, dy], |[of_packed, of_dy]| {
        let ((rows, width), dtype, device) = (of_packed.rows(), of_packed.dtype(), of_packed.device());
        let half = width / 2;
        let mut dx = Output::new(device, dtype, rows * 2 * half)?;
        let (read_packed, read_dy) = (of_packed.read(dtype, rows * 2 * half)?, of_dy.read(dtype, rows * half)?);
        let arguments = &mut [read_packed, read_dy, dx.write()?, Argument::Size(rows), Argument::Size(half)];
        launch(device, ACTIVATION, "swiglu_dx", dtype, Grid::Rows(rows), arguments)?;
        Ok(dx.tensor(packed.shape()))
    })
}
