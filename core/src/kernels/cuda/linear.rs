//! Linear layers on the GPU; see [`crate::nn::Linear`]. cuBLAS multiplies; of the gradients only those are computed that
//! something asks for, while candle's product computes both.

use super::{Argument, Operand, Output, columns, with};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CudaStorage, DType, Layout, Result, Tensor, bail};
use std::ffi::c_int;

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

/// dx = dy W and dW = dyᵀ x, each only when asked for; dW in f32, as it is used.
///
/// # Errors
/// When shapes or types disagree.
pub fn backward(x: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (out, inner) = weight.dims2()?;
    let (rows, dy) = (x.detach().reshape(((), inner))?, dy.detach().reshape(((), out))?);
    let dx = x.track_op().then(|| dy.matmul(&weight.detach())?.reshape(x.shape())).transpose()?;
    let of_weight = || with([&rows, &dy], |[rows, dy]| Ok(transposed_product(dy, rows)?.tensor(weight.shape())));
    Ok((dx, weight.track_op().then(of_weight).transpose()?))
}

/// aᵀ b of a (rows, m) and b (rows, n) of one type: (m, n) in f32, as the sums are, which spares a pass that widens them.
fn transposed_product(a: Operand<'_>, b: Operand<'_>) -> Result<Output> {
    let ((rows, m), (_, n), dtype, device) = (a.rows(), b.rows(), a.dtype(), a.device());
    let stored = match dtype {
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        _ => bail!("there is no product of {dtype:?}"),
    };
    let mut product = Output::new(device, DType::F32, m * n)?;
    let size = |count: usize| c_int::try_from(count).map_err(candle_core::Error::wrap);
    let (counts, [rows, m, n]) = ([rows * m, rows * n], [size(rows)?, size(m)?, size(n)?]);
    let (Argument::Read(a), Argument::Read(b), Argument::Write(mut c)) =
        (a.read(dtype, counts[0])?, b.read(dtype, counts[1])?, product.write()?)
    else {
        bail!("a product reads two matrices and writes one");
    };
    let (blas, stream) = (device.cublas_handle(), device.cuda_stream());
    let ((a, read_a), (b, read_b), (to, written)) =
        (a.device_ptr(&stream), b.device_ptr(&stream), c.device_ptr_mut(&stream));
    let (one, zero) = (1f32, 0f32);
    // cuBLAS counts by columns: what it sees of these matrices is transposed, and cᵀ = bᵀ a.
    // SAFETY: sizes and types are those that `read` and `Output` have checked, and the handle is of the stream that orders
    // this product with all other work on these values.
    unsafe {
        result::gemm_ex(
            *blas.handle(),
            sys::cublasOperation_t::CUBLAS_OP_N,
            sys::cublasOperation_t::CUBLAS_OP_T,
            n,
            m,
            rows,
            (&raw const one).cast(),
            b as *const _,
            stored,
            n,
            a as *const _,
            stored,
            m,
            (&raw const zero).cast(),
            to as *mut _,
            sys::cudaDataType_t::CUDA_R_32F,
            n,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
    }
    .w()?;
    drop((read_a, read_b, written));
    Ok(product)
}

/// The sum of the rows of dy (…, out), when the bias is trained.
///
/// # Errors
/// When the type has no kernel.
pub fn bias_gradient(bias: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    let sum = || with([dy], |[of_dy]| Ok(columns::sum(of_dy)?.tensor(bias.shape())));
    bias.track_op().then(sum).transpose()
}
