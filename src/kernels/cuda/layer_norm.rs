//! Layer normalisation on the GPU; see [`crate::nn::LayerNorm`].

use super::{Argument, Grid, Module, Operand, Output, columns, launch, ptx, with};
use candle_core::{CudaStorage, DType, Result, Tensor};

const LAYER_NORM: Module = Module { name: "layer_norm", ptx: ptx::LAYER_NORM };

/// x (…, d) normalised, scaled by weight (d) and shifted by bias (d), all of one type.
///
/// # Errors
/// When shapes or types disagree.
pub fn forward(x: Operand<'_>, weight: Operand<'_>, bias: Operand<'_>, eps: f32) -> Result<CudaStorage> {
    let ((rows, width), dtype, device) = (x.rows(), x.dtype(), x.device());
    let mut y = Output::new(device, dtype, rows * width)?;
    let arguments = &mut [
        x.read(dtype, rows * width)?,
        weight.read(dtype, width)?,
        bias.read(dtype, width)?,
        y.write()?,
        Argument::Size(rows),
        Argument::Size(width),
        Argument::Real(eps),
    ];
    launch(device, LAYER_NORM, "layer_norm", dtype, Grid::Rows(rows), arguments)?;
    Ok(y.storage)
}

/// The gradients of x, weight and bias, each only when something asks for it.
///
/// # Errors
/// When shapes or types disagree.
pub fn backward(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    dy: &Tensor,
    eps: f32,
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let (for_x, for_weight, for_bias) = (x.track_op(), weight.track_op(), bias.track_op());
    with([x, weight, dy], |[of_x, of_weight, of_dy]| {
        let moments = if for_x || for_weight { Some(moments(of_x, eps)?) } else { None };
        let dx = match &moments {
            Some(moments) if for_x => Some(input_gradient(of_x, of_weight, of_dy, moments)?.tensor(x.shape())),
            _ => None,
        };
        let dw = match &moments {
            Some(moments) if for_weight => Some(weight_gradient(of_x, of_dy, moments)?.tensor(weight.shape())),
            _ => None,
        };
        let db = if for_bias { Some(columns::sum(of_dy)?.tensor(bias.shape())) } else { None };
        Ok((dx, dw, db))
    })
}

/// Mean and reciprocal standard deviation of each row.
fn moments(x: Operand<'_>, eps: f32) -> Result<Output> {
    let ((rows, width), dtype, device) = (x.rows(), x.dtype(), x.device());
    let mut moments = Output::new(device, DType::F32, 2 * rows)?;
    let arguments = &mut [
        x.read(dtype, rows * width)?,
        moments.write()?,
        Argument::Size(rows),
        Argument::Size(width),
        Argument::Real(eps),
    ];
    launch(device, LAYER_NORM, "layer_norm_moments", dtype, Grid::Rows(rows), arguments)?;
    Ok(moments)
}

fn input_gradient(x: Operand<'_>, weight: Operand<'_>, dy: Operand<'_>, moments: &Output) -> Result<Output> {
    let ((rows, width), dtype, device) = (x.rows(), x.dtype(), x.device());
    let mut dx = Output::new(device, dtype, rows * width)?;
    let arguments = &mut [
        x.read(dtype, rows * width)?,
        weight.read(dtype, width)?,
        dy.read(dtype, rows * width)?,
        moments.read()?,
        dx.write()?,
        Argument::Size(rows),
        Argument::Size(width),
    ];
    launch(device, LAYER_NORM, "layer_norm_dx", dtype, Grid::Rows(rows), arguments)?;
    Ok(dx)
}

fn weight_gradient(x: Operand<'_>, dy: Operand<'_>, moments: &Output) -> Result<Output> {
    let ((rows, width), dtype, device) = (x.rows(), x.dtype(), x.device());
    let shares = columns::shares(rows);
    let mut sums = Output::new(device, DType::F32, shares * width)?;
    let arguments = &mut [
        x.read(dtype, rows * width)?,
        dy.read(dtype, rows * width)?,
        moments.read()?,
        sums.write()?,
        Argument::Size(rows),
        Argument::Size(width),
    ];
    launch(device, LAYER_NORM, "layer_norm_dw", dtype, Grid::Columns { width, shares }, arguments)?;
    columns::total(device, &sums, (shares, width), dtype)
}
