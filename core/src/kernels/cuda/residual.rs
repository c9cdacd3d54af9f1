//! The end of a residual branch on the GPU; see [`crate::nn::residual()`].

use super::columns::Sums;
use super::{Argument, Grid, Module, Operand, Output, launch, optional, ptx, with};
use candle_core::{CudaDevice, CudaStorage, DType, Result, Tensor, bail};

const RESIDUAL: Module = Module { name: "residual", ptx: ptx::RESIDUAL };

/// The factors of the samples on the GPU, if there are any.
fn upload(device: &CudaDevice, factors: Option<&[f32]>) -> Result<Option<Output>> {
    let upload = |factors: &[f32]| {
        let values = device.clone_htod(factors)?;
        Ok(Output::over(CudaStorage::wrap_cuda_slice(values, device.clone()), factors.len()))
    };
    factors.map(upload).transpose()
}

/// Tokens that share a factor.
fn tokens(rows: usize, factors: Option<&[f32]>) -> Result<usize> {
    let samples = factors.map_or(1, <[f32]>::len);
    if samples == 0 || !rows.is_multiple_of(samples) {
        bail!("{samples} factors for {rows} rows");
    }
    Ok((rows / samples).max(1))
}

/// x (B, …, d) + factors (B) · gamma (d) · branch (B, …, d): x, gamma and the result in f32.
///
/// # Errors
/// When shapes or types disagree.
pub fn forward(
    x: Operand<'_>,
    branch: Operand<'_>,
    gamma: Option<Operand<'_>>,
    factors: Option<&[f32]>,
) -> Result<CudaStorage> {
    let ((rows, width), dtype, device) = (x.rows(), branch.dtype(), x.device());
    let (tokens, factors) = (tokens(rows, factors)?, upload(device, factors)?);
    let mut y = Output::new(device, DType::F32, rows * width)?;
    let arguments = &mut [
        x.read(DType::F32, rows * width)?,
        branch.read(dtype, rows * width)?,
        optional(gamma.map(|gamma| gamma.read(DType::F32, width)).transpose()?),
        optional(factors.as_ref().map(Output::read).transpose()?),
        y.write()?,
        Argument::Size(rows),
        Argument::Size(width),
        Argument::Size(tokens),
    ];
    launch(device, RESIDUAL, "residual", dtype, Grid::Rows(rows), arguments)?;
    Ok(y.storage)
}

/// The gradient of the branch, in its type.
///
/// # Errors
/// When shapes or types disagree.
pub fn branch_gradient(
    branch: &Tensor,
    gamma: Option<&Tensor>,
    factors: Option<&[f32]>,
    dy: &Tensor,
) -> Result<Tensor> {
    let dtype = branch.dtype();
    with([dy, gamma.unwrap_or(dy)], |[of_dy, of_gamma]| {
        let ((rows, width), device) = (of_dy.rows(), of_dy.device());
        let (tokens, factors) = (tokens(rows, factors)?, upload(device, factors)?);
        let mut dbranch = Output::new(device, dtype, rows * width)?;
        let arguments = &mut [
            of_dy.read(DType::F32, rows * width)?,
            optional(gamma.map(|_| of_gamma.read(DType::F32, width)).transpose()?),
            optional(factors.as_ref().map(Output::read).transpose()?),
            dbranch.write()?,
            Argument::Size(rows),
            Argument::Size(width),
            Argument::Size(tokens),
        ];
        launch(device, RESIDUAL, "residual_dbranch", dtype, Grid::Rows(rows), arguments)?;
        Ok(dbranch.tensor(branch.shape()))
    })
}

/// The gradient of gamma (d), when it is trained.
///
/// # Errors
/// When shapes or types disagree.
pub fn gamma_gradient(branch: &Tensor, gamma: &Tensor, factors: Option<&[f32]>, dy: &Tensor) -> Result<Option<Tensor>> {
    if !gamma.track_op() {
        return Ok(None);
    }
    with([dy, branch], |[of_dy, of_branch]| {
        let ((rows, width), dtype, device) = (of_dy.rows(), of_branch.dtype(), of_dy.device());
        let (tokens, factors) = (tokens(rows, factors)?, upload(device, factors)?);
        let mut sums = Sums::new(1, (rows, width), &[of_dy, of_branch])?;
        let grid = sums.grid();
        let arguments = &mut [
            of_dy.read(DType::F32, rows * width)?,
            of_branch.read(dtype, rows * width)?,
            optional(factors.as_ref().map(Output::read).transpose()?),
            sums.write()?,
            Argument::Size(rows),
            Argument::Size(width),
            Argument::Size(tokens),
        ];
        launch(device, RESIDUAL, "residual_dgamma", dtype, grid, arguments)?;
        Ok(Some(sums.total()?.tensor(gamma.shape())))
    })
}
