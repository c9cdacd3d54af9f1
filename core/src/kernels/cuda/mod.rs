//! CUDA kernels and the small layer that launches them.
//!
//! Each `.cu` file is compiled to PTX by the build script and loaded by the driver at its first launch. Kernels store f32,
//! f16 or bf16 and compute in f32; a name ends in the type that it stores. No sum depends on the order in which blocks
//! run, so results repeat bit for bit. `tests/cuda_kernels.rs` runs the same files on the host.
#![allow(unsafe_code)] // launching a kernel is unsafe by nature; see `launch`

pub mod activation;
pub mod attention;
mod columns;
pub mod layer_norm;
pub mod linear;
pub mod normalize;
pub mod optimizer;
pub mod residual;

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, CudaViewMut, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};
use std::ops::Range;

mod ptx {
    #![allow(missing_docs)] // one constant for each file
    include!(concat!(env!("OUT_DIR"), "/ptx.rs"));
}

/// Threads of a warp; see `common.cuh`.
const WARP: usize = 32;

/// The kernels of a `.cu` file.
#[derive(Clone, Copy)]
pub struct Module {
    name: &'static str,
    ptx: &'static str,
}

/// How the work is cut into blocks.
#[derive(Clone, Copy)]
pub enum Grid {
    /// A warp for each row.
    Rows(usize),
    /// 256 threads for each block.
    Blocks(usize),
    /// Four warps for each block, with a tile of rows between them.
    Tiles(usize),
    /// So many columns for each lane of a warp and a share of the rows for each block, as in `columns.cuh`.
    Columns {
        /// Columns.
        width: usize,
        /// Columns of a lane: 1 or 4.
        at_once: usize,
        /// Shares of the rows.
        shares: usize,
    },
}

impl Grid {
    fn config(self) -> Result<LaunchConfig> {
        let (blocks, threads) = match self {
            Self::Rows(rows) => ((rows.div_ceil(4), 1), 4 * WARP),
            Self::Blocks(blocks) => ((blocks, 1), 8 * WARP),
            Self::Tiles(blocks) => ((blocks, 1), 4 * WARP),
            Self::Columns { width, at_once, shares } => ((width.div_ceil(at_once * WARP), shares), 8 * WARP),
        };
        let whole = |count: usize| u32::try_from(count).map_err(candle_core::Error::wrap);
        let grid_dim = (whole(blocks.0)?, whole(blocks.1)?, 1);
        Ok(LaunchConfig { grid_dim, block_dim: (whole(threads)?, 1, 1), shared_mem_bytes: 0 })
    }
}

/// A parameter of a kernel.
pub enum Argument<'a> {
    /// Values that are read.
    Read(CudaView<'a, u8>),
    /// Values that are written, and perhaps read.
    Write(CudaViewMut<'a, u8>),
    /// A `size_t`, or with 0 a null pointer.
    Size(usize),
    /// A `float`.
    Real(f32),
}

/// A pointer that may be null.
fn optional(values: Option<Argument<'_>>) -> Argument<'_> {
    values.unwrap_or(Argument::Size(0))
}

/// Values on the GPU as a custom operation gets them.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    storage: &'a CudaStorage,
    layout: &'a Layout,
}

impl<'a> Operand<'a> {
    /// The values of `storage` that `layout` selects.
    pub fn new(storage: &'a CudaStorage, layout: &'a Layout) -> Self {
        Self { storage, layout }
    }

    fn device(&self) -> &'a CudaDevice {
        &self.storage.device
    }

    /// Their type.
    pub fn dtype(&self) -> DType {
        self.storage.dtype()
    }

    /// Their shape.
    pub fn shape(&self) -> &'a Shape {
        self.layout.shape()
    }

    /// Their number.
    pub fn count(&self) -> usize {
        self.shape().elem_count()
    }

    /// The sum of both, by candle's kernel.
    ///
    /// # Errors
    /// When types disagree.
    pub fn plus(&self, other: Self) -> Result<CudaStorage> {
        self.storage.binary_impl::<candle_core::op::Add>(other.storage, self.layout, other.layout)
    }

    /// Whether pieces of `count` values can be read at once from where they begin.
    fn aligned(&self, count: usize) -> bool {
        self.layout.start_offset().is_multiple_of(count)
    }

    /// Rows and the length of a row.
    fn rows(&self) -> (usize, usize) {
        let width = self.shape().dims().last().copied().unwrap_or(1);
        (self.count() / width.max(1), width)
    }

    /// As a parameter of a kernel that reads `count` values of that type.
    ///
    /// # Errors
    /// When there are others or they are strided.
    pub fn read(&self, dtype: DType, count: usize) -> Result<Argument<'a>> {
        let range = match self.layout.contiguous_offsets() {
            Some((start, end)) if end - start == count && self.dtype() == dtype => start..end,
            _ => bail!(
                "a kernel needs {count} contiguous values in {dtype:?}, got {:?} in {:?}",
                self.layout,
                self.dtype()
            ),
        };
        let view = match &self.storage.slice {
            CudaStorageSlice::F32(values) => erased(values, range),
            CudaStorageSlice::F16(values) => erased(values, range),
            CudaStorageSlice::BF16(values) => erased(values, range),
            CudaStorageSlice::U8(values) => erased(values, range),
            _ => None,
        };
        view.map(Argument::Read).ok_or_else(|| candle_core::Error::msg("values of that type have no kernel"))
    }
}

fn erased<T>(values: &CudaSlice<T>, range: Range<usize>) -> Option<CudaView<'_, u8>> {
    let bytes = range.len() * size_of::<T>();
    // SAFETY: any memory may be viewed as bytes, and the length is that of the view.
    unsafe { values.try_slice(range)?.transmute(bytes) }
}

fn erased_mut<T>(values: &mut CudaSlice<T>) -> Option<CudaViewMut<'_, u8>> {
    let bytes = values.len() * size_of::<T>();
    // SAFETY: as above; kernels write whole values of T, all of whose bit patterns are valid.
    unsafe { values.transmute_mut(bytes) }
}

/// New values, written by a kernel before anything reads them.
struct Output {
    storage: CudaStorage,
    layout: Layout,
}

impl Output {
    /// Room for `count` values.
    fn new(device: &CudaDevice, dtype: DType, count: usize) -> Result<Self> {
        // SAFETY: every kernel writes all values of its outputs, and launches of a stream run in order.
        let storage = unsafe { device.alloc_uninit(&count.into(), dtype)? };
        Ok(Self::over(storage, count))
    }

    /// Values that are there already, in order.
    fn over(storage: CudaStorage, shape: impl Into<Shape>) -> Self {
        Self { storage, layout: Layout::contiguous(shape) }
    }

    /// The same values in another shape.
    fn shaped(self, shape: &Shape) -> Self {
        Self::over(self.storage, shape)
    }

    /// As a parameter of a kernel that writes all of it.
    fn write(&mut self) -> Result<Argument<'_>> {
        let view = match &mut self.storage.slice {
            CudaStorageSlice::F32(values) => erased_mut(values),
            CudaStorageSlice::F16(values) => erased_mut(values),
            CudaStorageSlice::BF16(values) => erased_mut(values),
            _ => None,
        };
        view.map(Argument::Write).ok_or_else(|| candle_core::Error::msg("values of that type have no kernel"))
    }

    /// As an operand of a later kernel.
    fn operand(&self) -> Operand<'_> {
        Operand::new(&self.storage, &self.layout)
    }

    /// As a parameter of a later kernel that reads all of it.
    fn read(&self) -> Result<Argument<'_>> {
        let all = self.operand();
        all.read(all.dtype(), all.count())
    }

    /// As a tensor without a graph.
    fn tensor(self, shape: &Shape) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage), shape, BackpropOp::none(), false)
    }
}

/// Runs kernel `name` of a module in the variant that stores `dtype`. Arguments are in the order of its parameters.
///
/// Callers pass every pointer through [`Operand::read`] or as a whole [`Output`], with the sizes that they have checked
/// it for; the files state which size bounds which pointer.
///
/// # Errors
/// When the driver refuses the module or the launch.
fn launch(
    device: &CudaDevice,
    module: Module,
    name: &str,
    dtype: DType,
    grid: Grid,
    arguments: &mut [Argument<'_>],
) -> Result<()> {
    let config = grid.config()?;
    if config.grid_dim.0 == 0 || config.grid_dim.1 == 0 {
        return Ok(()); // nothing to do, which the driver calls an error
    }
    let function = device.get_or_load_custom_func(&format!("{name}_{}", dtype.as_str()), module.name, module.ptx)?;
    let mut builder = function.builder();
    for argument in arguments {
        match argument {
            Argument::Read(view) => builder.arg(&*view),
            Argument::Write(view) => builder.arg(view),
            Argument::Size(size) => builder.arg(&*size),
            Argument::Real(real) => builder.arg(&*real),
        };
    }
    // SAFETY: the kernels are this crate's own; they stay within the sizes given, write only to outputs, which are
    // borrowed mutably, and the stream orders them with all other work on these values.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Gives the contiguous values of tensors on the GPU to `f`.
///
/// # Errors
/// When a tensor is elsewhere, and those of `f`.
fn with<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([Operand<'_>; N]) -> Result<R>) -> Result<R> {
    let tensors = tensors.iter().map(|x| x.contiguous()).collect::<Result<Vec<_>>>()?;
    let held: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut operands = Vec::with_capacity(N);
    for (storage, layout) in &held {
        match &**storage {
            Storage::Cuda(storage) => operands.push(Operand::new(storage, layout)),
            _ => bail!("a CUDA kernel got a tensor of another device"),
        }
    }
    match operands.try_into() {
        Ok(operands) => f(operands),
        Err(_) => bail!("a kernel needs {N} operands"),
    }
}
