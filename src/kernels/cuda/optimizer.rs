//! The optimiser's passes over the parameters on the GPU; see [`crate::train::adamw`] and [`crate::train::gradients`].

use super::{Argument, Grid, Module, Operand, launch, ptx};
use candle_core::cuda_backend::cudarc::driver::CudaViewMut;
use candle_core::{CudaStorage, DType, Layout, Result, bail};
use std::ops::Range;

const ADAMW: Module = Module { name: "adamw", ptx: ptx::ADAMW };
const REDUCE: Module = Module { name: "reduce", ptx: ptx::REDUCE };

/// Values that a thread updates where there are enough of them.
const VALUES_A_THREAD: usize = 4;
/// Blocks beyond which threads take more values each.
const MOST_BLOCKS: usize = 4096;

/// `AdamW`'s update of weights (…) and moments (2, …) by a gradient (…), all in f32. The coefficients are the last parameters
/// of the kernel in `adamw.cu`.
///
/// # Errors
/// When sizes or types disagree.
pub fn adamw(
    (weights, weights_layout): (&mut CudaStorage, &Layout),
    (moments, moments_layout): (&mut CudaStorage, &Layout),
    gradient: Operand<'_>,
    coefficients: [f32; 7],
) -> Result<()> {
    let count = gradient.count();
    let mut weights = values_mut(weights, weights_layout, count)?;
    let mut moments = values_mut(moments, moments_layout, 2 * count)?;
    let mut arguments = vec![
        Argument::Write(bytes(&mut weights)?),
        Argument::Write(bytes(&mut moments)?),
        gradient.read(DType::F32, count)?,
        Argument::Size(count),
    ];
    arguments.extend(coefficients.map(Argument::Real));
    let blocks = count.div_ceil(256 * VALUES_A_THREAD).min(MOST_BLOCKS);
    launch(gradient.device(), ADAMW, "adamw", DType::F32, Grid::Blocks(blocks), &mut arguments)
}

/// Leaves partial sums of the squares of x at `places` of `sums`, all in f32.
///
/// # Errors
/// When there are no such places.
pub fn square_sums(x: Operand<'_>, (sums, layout): (&mut CudaStorage, &Layout), places: Range<usize>) -> Result<()> {
    let count = layout.shape().elem_count();
    if places.end > count {
        bail!("there are no places {places:?} among {count} sums of squares");
    }
    let mut sums = values_mut(sums, layout, count)?;
    let arguments = &mut [
        x.read(DType::F32, x.count())?,
        Argument::Write(bytes(&mut sums)?),
        Argument::Size(x.count()),
        Argument::Size(places.start),
    ];
    launch(x.device(), REDUCE, "square_sums", DType::F32, Grid::Blocks(places.len()), arguments)
}

/// The `count` values that a layout selects, for writing in place.
fn values_mut<'a>(storage: &'a mut CudaStorage, layout: &Layout, count: usize) -> Result<CudaViewMut<'a, f32>> {
    let range = match layout.contiguous_offsets() {
        Some((start, end)) if end - start == count => start..end,
        _ => bail!("a kernel needs {count} contiguous values, got {layout:?}"),
    };
    let view = storage.as_cuda_slice_mut::<f32>()?.try_slice_mut(range);
    view.ok_or_else(|| candle_core::Error::msg("a layout selects more than its storage has"))
}

fn bytes<'a>(values: &'a mut CudaViewMut<'_, f32>) -> Result<CudaViewMut<'a, u8>> {
    let length = values.len() * size_of::<f32>();
    // SAFETY: any memory may be viewed as bytes; kernels write whole values, all of whose bit patterns are valid.
    let view = unsafe { values.transmute_mut(length) };
    view.ok_or_else(|| candle_core::Error::msg("values of that type have no kernel"))
}
