//! Biases and the sums over rows that are their gradients.

use super::{Argument, Grid, Module, Operand, Output, launch, ptx};
use candle_core::{CudaDevice, CudaStorage, DType, Result};

const COLUMNS: Module = Module { name: "columns", ptx: ptx::COLUMNS };

/// Shares that rows are added up in: enough to fill a GPU, few enough to cost nothing.
pub(super) fn shares(rows: usize) -> usize {
    rows.div_ceil(64).clamp(1, 64)
}

/// Adds up `shares` sums of columns, (shares, width) in f32, to (width) in `dtype`.
pub(super) fn total(
    device: &CudaDevice,
    sums: &Output,
    (shares, width): (usize, usize),
    dtype: DType,
) -> Result<Output> {
    let mut total = Output::new(device, dtype, width)?;
    let arguments = &mut [sums.read()?, total.write()?, Argument::Size(shares), Argument::Size(width)];
    launch(device, COLUMNS, "column_total", dtype, Grid::Columns { width, shares: 1 }, arguments)?;
    Ok(total)
}

/// The sum of the rows of x (…, width), (width).
pub(super) fn sum(x: Operand<'_>) -> Result<Output> {
    let ((rows, width), dtype, device) = (x.rows(), x.dtype(), x.device());
    let shares = shares(rows);
    let mut sums = Output::new(device, DType::F32, shares * width)?;
    let arguments = &mut [x.read(dtype, rows * width)?, sums.write()?, Argument::Size(rows), Argument::Size(width)];
    launch(device, COLUMNS, "column_shares", dtype, Grid::Columns { width, shares }, arguments)?;
    total(device, &sums, (shares, width), dtype)
}

/// Adds a bias (width) to rows y (…, width).
pub(super) fn add_bias(y: CudaStorage, (rows, width): (usize, usize), bias: Operand<'_>) -> Result<CudaStorage> {
    let (dtype, device) = (bias.dtype(), bias.device());
    let mut y = Output::over(y, rows * width);
    let arguments = &mut [y.write()?, bias.read(dtype, width)?, Argument::Size(rows), Argument::Size(width)];
    launch(device, COLUMNS, "add_bias", dtype, Grid::Rows(rows), arguments)?;
    Ok(y.storage)
}
