//! Single-threaded CPU kernels on plain slices; in `cuda`, with that feature, those of NVIDIA GPUs. [`run`] chooses.
//!
//! The batch is sharded over worker threads (see [`nn::workers`](crate::nn::workers)), so a kernel never starts threads of its own.
//! Loops are written so that the compiler vectorises them, and run under [`simd`], which selects AVX-512, AVX2 with
//! FMA, NEON or the baseline at run time: a plain `cargo install` is fast without `target-cpu=native`.

pub mod buffer;
mod choice;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod gemm;
pub mod math;
mod normalize;
mod operation;
pub mod tape;

#[cfg(test)]
pub(crate) use choice::trials;
pub use choice::{Fusible, composed_only, has_kernel, refused, run};
pub use normalize::normalize;
pub use operation::Operation;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use half::slice::HalfFloatSliceExt;

/// Runs a closure compiled for the best instruction set of this CPU. What it calls must be inlined into it: a function or
/// closure that is called instead is compiled for the baseline. In this crate a large one is given to the macro of this name.
pub fn simd<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// [`simd`] of a block that is inlined however large it is.
macro_rules! simd_block {
    ($block:block) => {
        $crate::kernels::simd(
            #[inline(always)]
            || $block,
        )
    };
}
pub(crate) use simd_block as simd;

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

/// The mutable f32 values of a contiguous in-place argument.
///
/// # Errors
/// When it is not contiguous, or holds other values.
pub fn contiguous_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an in-place kernel needs a contiguous argument, got {layout:?}");
    };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        _ => bail!("an in-place kernel needs f32 values"),
    }
}

/// Reads a CPU tensor's f32 values in order, copying only when it is strided.
///
/// # Errors
/// When the tensor is not f32 or lives on another device.
pub fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    read_all(&[tensor], |values| f(values.first().copied().unwrap_or_default()))
}

/// [`read`] of a tensor that may be absent.
///
/// # Errors
/// As of [`read`].
pub fn read_optional<R>(tensor: Option<&Tensor>, f: impl FnOnce(Option<&[f32]>) -> Result<R>) -> Result<R> {
    read_all(tensor.as_slice(), |values| f(values.first().copied()))
}

/// [`read`] of several tensors at once.
///
/// # Errors
/// As of [`read`].
pub fn read_all<R>(tensors: &[&Tensor], f: impl FnOnce(&[&[f32]]) -> Result<R>) -> Result<R> {
    let tensors = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
    let held: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let values = held.iter().map(|(storage, layout)| match &**storage {
        Storage::Cpu(storage) => contiguous(storage, layout),
        _ => bail!("a CPU kernel got a tensor of another device"),
    });
    f(&values.collect::<Result<Vec<_>>>()?)
}

/// Leaves the gradient of a parameter in `store` if it is trained.
///
/// # Errors
/// When the values do not fit the shape.
pub fn keep(store: &mut GradStore, param: &Tensor, values: impl FnOnce() -> Result<Vec<f32>>) -> Result<()> {
    if param.track_op() {
        store.insert(param, Tensor::from_vec(values()?, param.shape(), param.device())?);
    }
    Ok(())
}

/// Whether the fused CPU kernels apply, for what exists on the CPU alone; see [`run`] for layers.
pub fn fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The width to which heads are padded where a GPU attends them on tensor cores, in half precision; none for widths that
/// have no such kernel.
pub fn tensor_core_heads(head_dim: usize) -> Option<usize> {
    let padded = head_dim.next_multiple_of(32);
    (head_dim.is_multiple_of(8) && (32..=128).contains(&padded)).then_some(padded)
}

/// Half-precision values in f32, for sums that would lose their digits; other types stay as they are.
///
/// # Errors
/// When the device is out of memory.
pub fn widened(x: &Tensor) -> Result<Tensor> {
    if x.dtype().size_in_bytes() >= 4 {
        return Ok(x.clone());
    }
    // On a CPU candle asks for each value anew what the processor can do. Its storage is locked no longer than need be.
    let wide = {
        let (storage, layout) = x.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F16(values)), Some((from, to))) if !x.track_op() => {
                Some(values[from..to].to_f32_vec())
            }
            (Storage::Cpu(CpuStorage::BF16(values)), Some((from, to))) if !x.track_op() => {
                Some(values[from..to].to_f32_vec())
            }
            _ => None,
        }
    };
    wide.map_or_else(|| x.to_dtype(DType::F32), |values| Tensor::from_vec(values, x.shape(), x.device()))
}

/// Lanes of the partial sums: enough to fill two AVX-512 registers, and a fixed order of addition on every CPU.
pub const LANES: usize = 32;

/// Sum of `f` over the values at equal places of slices of one length, in [`LANES`] partial sums: it vectorises where a
/// plain sum may not be reordered.
#[inline(always)]
pub fn lane_sum<const N: usize>(slices: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let parts = slices.map(|slice| slice.as_chunks::<LANES>());
    let whole = parts.iter().map(|(chunks, _)| chunks.len()).min().unwrap_or(0);
    // Without optimisation across crates neither maps of arrays nor zips are inlined, and then nothing vectorises.
    let (mut at, mut values) = ([&[0.0; LANES]; N], [0.0; N]);
    for chunk in 0..whole {
        for (slice, at) in at.iter_mut().enumerate() {
            *at = &parts[slice].0[chunk];
        }
        for (lane, sum) in lanes.iter_mut().enumerate() {
            for (slice, value) in values.iter_mut().enumerate() {
                *value = at[slice][lane];
            }
            *sum += f(values);
        }
    }
    let mut tail = 0.0;
    for place in 0..parts.iter().map(|(_, rest)| rest.len()).min().unwrap_or(0) {
        for (slice, value) in values.iter_mut().enumerate() {
            *value = parts[slice].1[place];
        }
        tail += f(values);
    }
    fold_lanes(lanes, |a, b| a + b) + tail
}

/// The largest value; NaN is never larger.
#[inline(always)]
pub fn lane_max(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, largest) in lanes.iter_mut().enumerate() {
            *largest = larger(*largest, chunk[lane]);
        }
    }
    rest.iter().fold(fold_lanes(lanes, larger), |max, &x| larger(max, x))
}

/// The lanes as one value, halves first.
#[inline(always)]
fn fold_lanes(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = f(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// How many values are NaN or infinite.
pub fn count_not_finite(values: &[f32]) -> usize {
    values.iter().filter(|value| !value.is_finite()).count()
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

/// Adds `row` (n) to every row of `rows` (m, n): a bias.
pub fn add_bias(rows: &mut [f32], row: &[f32]) {
    simd!({
        for values in rows.chunks_exact_mut(row.len()) {
            values.iter_mut().zip(row).for_each(|(value, term)| *value += term);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::widened;
    use candle_core::{DType, Device, Tensor, Var};

    #[test]
    fn every_half_precision_value_widens_to_itself() {
        let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in [DType::F16, DType::BF16] {
            let all = Tensor::from_raw_buffer(&bits, dtype, &[256, 256], &Device::Cpu).unwrap();
            let cut = all.narrow(0, 3, 200).unwrap();
            for x in [&all, &cut, &cut.t().unwrap(), &Var::from_tensor(&cut).unwrap()] {
                let [ours, candles] = [widened(x).unwrap(), x.to_dtype(DType::F32).unwrap()]
                    .map(|wide| wide.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                assert!(
                    ours.iter().zip(&candles).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
                );
            }
        }
    }

    #[test]
    fn gradients_flow_through_what_is_widened() {
        let x = Var::new(&[1.5f32, -2.0], &Device::Cpu).unwrap();
        let half = x.to_dtype(DType::F16).unwrap();
        let store = widened(&half).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(store.get(&x).unwrap().to_vec1::<f32>().unwrap(), [3.0, -4.0]);
    }
}
