//! Single-threaded CPU kernels on plain slices.
//!
//! The batch is sharded over worker threads (see [`crate::train`]), so a kernel never starts threads of its own.
//! Loops are written so that the compiler vectorises them, and run under [`simd`], which selects AVX-512, AVX2 with
//! FMA, NEON or the baseline at run time: a plain `cargo install` is fast without `target-cpu=native`.

pub mod gemm;
pub mod math;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};

/// Runs a closure compiled for the best instruction set of this CPU.
pub fn simd<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// The contiguous f32 values of a custom operation's argument.
///
/// # Errors
/// When the storage is not f32 or the layout is strided.
pub fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("a kernel needs a contiguous argument, got {layout:?}"),
    }
}

/// Reads a CPU tensor's f32 values in order, copying only when it is strided.
///
/// # Errors
/// When the tensor is not f32 or lives on another device.
pub fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(contiguous(storage, layout)?),
        _ => bail!("a CPU kernel got a tensor of another device"),
    }
}

/// The gradient of an operand, in its shape; none when nothing asks for it.
///
/// # Errors
/// When the values do not fit the shape.
pub fn gradient_of(operand: &Tensor, values: Vec<f32>) -> Result<Option<Tensor>> {
    operand.track_op().then(|| Tensor::from_vec(values, operand.shape(), operand.device())).transpose()
}

/// Whether the fused CPU kernels apply; elsewhere each layer is a composition of candle's differentiable ops.
pub fn fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// Half-precision values in f32, for sums that would lose their digits; other types stay as they are.
///
/// # Errors
/// When the device is out of memory.
pub fn widened(x: &Tensor) -> Result<Tensor> {
    if x.dtype().size_in_bytes() < 4 { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// Lanes of the partial sums: enough to fill two AVX-512 registers, and a fixed order of addition on every CPU.
pub const LANES: usize = 32;

/// Sum of `f(i)` over `0..n` in [`LANES`] partial sums, which vectorises where a plain sum may not be reordered.
#[inline(always)]
pub fn lane_sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    let tail: f32 = (whole..n).map(&f).sum();
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0] + tail
}

/// Adds every row of `rows` (m, n) to `sum` (n): the gradient of a bias.
pub fn add_rows(rows: &[f32], sum: &mut [f32]) {
    simd(|| {
        for row in rows.chunks_exact(sum.len()) {
            for (total, value) in sum.iter_mut().zip(row) {
                *total += value;
            }
        }
    });
}
