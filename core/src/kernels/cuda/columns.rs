//! Biases and the sums over rows that are their gradients.

use super::{Argument, Grid, Module, Operand, Output, launch, ptx};
use candle_core::{CudaStorage, DType, Result, bail};

const COLUMNS: Module = Module { name: "columns", ptx: ptx::COLUMNS };

/// Columns that a lane reads at once where all rows allow it, as `in_fours` in `common.cuh` says.
const AT_ONCE: usize = 4;

/// Shares that rows are added up in: enough to fill a GPU, few enough to cost nothing.
fn shares(rows: usize) -> usize {
    rows.div_ceil(64).clamp(1, 64)
}

/// Sums over rows: those of `rows` rows of `width` values that `operands` hold, and how they are cut into blocks.
pub(super) struct Sums {
    parts: Output,
    per_column: usize,
    width: usize,
    shares: usize,
    at_once: usize,
}

impl Sums {
    /// Room for the shares of so many sums of each column.
    pub(super) fn new(per_column: usize, (rows, width): (usize, usize), operands: &[Operand<'_>]) -> Result<Self> {
        let Some(device) = operands.first().map(Operand::device) else { bail!("a sum needs an operand") };
        let fours = width.is_multiple_of(AT_ONCE) && operands.iter().all(|operand| operand.aligned(AT_ONCE));
        let shares = shares(rows);
        let parts = Output::new(device, DType::F32, shares * per_column * width)?;
        Ok(Self { parts, per_column, width, shares, at_once: if fours { AT_ONCE } else { 1 } })
    }

    /// How a kernel that sums columns is launched.
    pub(super) fn grid(&self) -> Grid {
        Grid::Columns { width: self.width, at_once: self.at_once, shares: self.shares }
    }

    /// Where it leaves the shares.
    pub(super) fn write(&mut self) -> Result<Argument<'_>> {
        self.parts.write()
    }

    /// Adds up the shares: (sums of a column, width), in f32.
    pub(super) fn total(self) -> Result<Output> {
        let width = self.per_column * self.width;
        let mut total = Output::new(&self.parts.storage.device, DType::F32, width)?;
        let at_once = if width.is_multiple_of(AT_ONCE) { AT_ONCE } else { 1 };
        let arguments = &mut [self.parts.read()?, total.write()?, Argument::Size(self.shares), Argument::Size(width)];
        let grid = Grid::Columns { width, at_once, shares: 1 };
        launch(&self.parts.storage.device, COLUMNS, "column_sums", DType::F32, grid, arguments)?;
        Ok(total)
    }
}

/// The sum of the rows of x (…, width): (width), in f32.
pub(super) fn sum(x: Operand<'_>) -> Result<Output> {
    let ((rows, width), dtype) = (x.rows(), x.dtype());
    let mut sums = Sums::new(1, (rows, width), &[x])?;
    let grid = sums.grid();
    let arguments = &mut [x.read(dtype, rows * width)?, sums.write()?, Argument::Size(rows), Argument::Size(width)];
    launch(x.device(), COLUMNS, "column_sums", dtype, grid, arguments)?;
    sums.total()
}

/// Adds a bias (width) to rows y (…, width).
pub(super) fn add_bias(y: CudaStorage, (rows, width): (usize, usize), bias: Operand<'_>) -> Result<CudaStorage> {
    let (dtype, device) = (bias.dtype(), bias.device());
    let mut y = Output::over(y, rows * width);
    let arguments = &mut [y.write()?, bias.read(dtype, width)?, Argument::Size(rows), Argument::Size(width)];
    launch(device, COLUMNS, "add_bias", dtype, Grid::Rows(rows), arguments)?;
    Ok(y.storage)
}
