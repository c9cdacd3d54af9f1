//! Linear layers on the GPU; see [`crate::nn::Linear`]. cuBLAS multiplies; of the gradients only those are computed that
//! something asks for, while candle's product computes both.

use super::{Operand, columns, with};
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Tensor, bail};

/// x (…, in) times the transposed weight (out, in), plus bias (out): (…, out).
///
/// # Errors
/// When shapes or types disagree.
pub fn forward(x: Operand<'_>, weight: Operand<'_>, bias: Option<Operand<'_>>) -> Result<CudaStorage> {
    let ((rows, inner), (out, expected)) = (x.rows(), weight.shape().dims2()?);
    let offsets = (x.layout.contiguous_offsets(), weight.layout.contiguous_offsets());
    let (Some((from_x, _)), Some((from_weight, _)), true) = (offsets.0, offsets.1, inner == expected) else {
        bail!("linear layer expects {expected} contiguous features, got an input of shape {:?}", x.shape());
    };
    let left = Layout::contiguous_with_offset((rows, inner), from_x);
    let right = Layout::contiguous_with_offset((out, inner), from_weight).transpose(0, 1)?;
    let product = x.storage.matmul(weight.storage, (1, rows, out, inner), &left, &right)?;
    match bias {
        Some(bias) => columns::add_bias(product, (rows, out), bias),
        None => Ok(product),
    }
}

/// dx = dy W and dW = dyᵀ x, each only when asked for.
///
/// # Errors
/// When shapes or types disagree.
pub fn backward(x: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (out, inner) = weight.dims2()?;
    let (rows, dy) = (x.detach().reshape(((), inner))?, dy.detach().reshape(((), out))?);
    let dx = x.track_op().then(|| dy.matmul(&weight.detach())?.reshape(x.shape())).transpose()?;
    let dw = weight.track_op().then(|| dy.t()?.matmul(&rows)).transpose()?;
    Ok((dx, dw))
}

/// The sum of the rows of dy (…, out), when the bias is trained.
///
/// # Errors
/// When the type has no kernel.
pub fn bias_gradient(bias: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    let sum = || with([dy], |[of_dy]| Ok(columns::sum(of_dy)?.tensor(bias.shape())));
    bias.track_op().then(sum).transpose()
}
