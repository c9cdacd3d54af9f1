//! Activations on the GPU; see [`crate::nn::Activation`] and [`crate::nn::swiglu()`].

use super::columns::Sums;
use super::{Argument, Grid, Module, Operand, Output, launch, optional, ptx, with};
use candle_core::{CudaStorage, Result, Tensor};

const ACTIVATION: Module = Module { name: "activation", ptx: ptx::ACTIVATION };

/// f(x + bias), where `kind` is a number of `Kind` in `activation.cu`; x (…, d), bias (d) if there is one.
///
/// # Errors
/// When shapes or types disagree.
pub fn forward(x: Operand<'_>, bias: Option<Operand<'_>>, kind: usize) -> Result<CudaStorage> {
    let ((rows, width), dtype, device) = (x.rows(), x.dtype(), x.device());
    let mut y = Output::new(device, dtype, rows * width)?;
    let arguments = &mut [
        x.read(dtype, rows * width)?,
        optional(bias.map(|bias| bias.read(dtype, width)).transpose()?),
        y.write()?,
        Argument::Size(rows),
        Argument::Size(width),
        Argument::Size(kind),
    ];
    launch(device, ACTIVATION, "activation", dtype, Grid::Rows(rows), arguments)?;
    Ok(y.storage)
}

/// dx = dy f'(x + bias), and its sum over the rows where the bias is trained.
///
/// # Errors
/// When shapes or types disagree.
pub fn backward(x: &Tensor, bias: Option<&Tensor>, dy: &Tensor, kind: usize) -> Result<(Tensor, Option<Tensor>)> {
    with([x, dy, bias.unwrap_or(x)], |[of_x, of_dy, of_bias]| {
        let ((rows, width), dtype, device) = (of_x.rows(), of_x.dtype(), of_x.device());
        let mut dx = Output::new(device, dtype, rows * width)?;
        let (read_x, read_dy) = (of_x.read(dtype, rows * width)?, of_dy.read(dtype, rows * width)?);
        let read_bias = optional(bias.map(|_| of_bias.read(dtype, width)).transpose()?);
        let sizes = [rows, width, kind].map(Argument::Size);
        let Some(bias) = bias.filter(|bias| bias.track_op()) else {
            let pointers = [read_x, read_bias, read_dy, dx.write()?];
            let mut arguments: Vec<_> = pointers.into_iter().chain(sizes).collect();
            launch(device, ACTIVATION, "activation_dx", dtype, Grid::Rows(rows), &mut arguments)?;
            drop(arguments);
            return Ok((dx.tensor(x.shape()), None));
        };
        let mut sums = Sums::new(1, (rows, width), &[of_x, of_dy, of_bias])?;
        let grid = sums.grid();
        let pointers = [read_x, read_bias, read_dy, dx.write()?, sums.write()?];
        let mut arguments: Vec<_> = pointers.into_iter().chain(sizes).collect();
        launch(device, ACTIVATION, "activation_dxb", dtype, grid, &mut arguments)?;
        drop(arguments);
        Ok((dx.tensor(x.shape()), Some(sums.total()?.tensor(bias.shape()))))
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
