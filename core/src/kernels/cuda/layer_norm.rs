//! Layer normalisation on the GPU; see [`crate::nn::LayerNorm`].

use super::columns::Sums;
use super::{Argument, Grid, Module, Operand, Output, launch, optional, ptx, with};
use candle_core::{CudaStorage, DType, Result, Tensor};

const LAYER_NORM: Module = Module { name: "layer_norm", ptx: ptx::LAYER_NORM };

/// x (…, d) normalised, scaled by weight (d) and shifted by bias (d), all in f32, to a result in `dtype`.
///
/// # Errors
/// When shapes or types disagree.
pub fn forward(x: Operand<'_>, weight: Operand<'_>, bias: Operand<'_>, eps: f32, dtype: DType) -> Result<CudaStorage> {
    let ((rows, width), device) = (x.rows(), x.device());
    let mut y = Output::new(device, dtype, rows * width)?;
    let arguments = &mut [
        x.read(DType::F32, rows * width)?,
        weight.read(DType::F32, width)?,
        bias.read(DType::F32, width)?,
        y.write()?,
        Argument::Size(rows),
        Argument::Size(width),
        Argument::Real(eps),
    ];
    launch(device, LAYER_NORM, "layer_norm", dtype, Grid::Rows(rows), arguments)?;
    Ok(y.storage)
}

/// The gradients of x, weight and bias, each only when something asks for it; dy has the type of the result. That of x is
/// added to what it has `before`, of the shape of x in f32.
///
/// # Errors
/// When shapes or types disagree.
pub fn backward(
    [x, weight, bias]: [&Tensor; 3],
    dy: &Tensor,
    before: Option<&Tensor>,
    eps: f32,
) -> Result<[Option<Tensor>; 3]> {
    let (for_x, for_weight, for_bias) = (x.track_op(), weight.track_op(), bias.track_op());
    with([x, weight, dy, before.unwrap_or(x)], |[of_x, of_weight, of_dy, of_before]| {
        let of_before = before.map(|_| of_before);
        let (dx, moments) = input_gradient(of_x, of_weight, of_dy, of_before, for_x, eps)?;
        let dx = dx.map(|dx| dx.tensor(x.shape()));
        if !for_weight && !for_bias {
            return Ok([dx, None, None]);
        }
        let both = parameter_gradients(of_x, of_dy, &moments)?.tensor(&(2, weight.elem_count()).into());
        let dw = for_weight.then(|| both.get(0)?.reshape(weight.shape())).transpose()?;
        let db = for_bias.then(|| both.get(1)?.reshape(bias.shape())).transpose()?;
        Ok([dx, dw, db])
    })
}

/// The gradient of x if it is wanted, and mean and reciprocal standard deviation of each row.
fn input_gradient(
    x: Operand<'_>,
    weight: Operand<'_>,
    dy: Operand<'_>,
    before: Option<Operand<'_>>,
    wanted: bool,
    eps: f32,
) -> Result<(Option<Output>, Output)> {
    let ((rows, width), dtype, device) = (x.rows(), dy.dtype(), x.device());
    let mut moments = Output::new(device, DType::F32, 2 * rows)?;
    let mut dx = wanted.then(|| Output::new(device, DType::F32, rows * width)).transpose()?;
    let arguments = &mut [
        x.read(DType::F32, rows * width)?,
        weight.read(DType::F32, width)?,
        dy.read(dtype, rows * width)?,
        optional(before.map(|before| before.read(DType::F32, rows * width)).transpose()?),
        optional(dx.as_mut().map(Output::write).transpose()?),
        moments.write()?,
        Argument::Size(rows),
        Argument::Size(width),
        Argument::Real(eps),
    ];
    launch(device, LAYER_NORM, "layer_norm_dx", dtype, Grid::Rows(rows), arguments)?;
    Ok((dx, moments))
}

/// The gradients of weight and bias, (2, d).
fn parameter_gradients(x: Operand<'_>, dy: Operand<'_>, moments: &Output) -> Result<Output> {
    let ((rows, width), dtype) = (x.rows(), dy.dtype());
    let mut sums = Sums::new(2, (rows, width), &[x, dy])?;
    let grid = sums.grid();
    let arguments = &mut [
        x.read(DType::F32, rows * width)?,
        dy.read(dtype, rows * width)?,
        moments.read()?,
        sums.write()?,
        Argument::Size(rows),
        Argument::Size(width),
    ];
    launch(x.device(), LAYER_NORM, "layer_norm_dwb", dtype, grid, arguments)?;
    sums.total()
}
