//! The optimiser's passes over all parameters on the GPU, one launch each; see [`crate::optim::adamw`] and
//! [`crate::optim::gradients`].

use super::{Argument, Grid, Module, Output, erased, launch, ptx};
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::{CudaDevice, DType, Result, Storage, Tensor, bail};
use std::ops::Range;

const ADAMW: Module = Module { name: "adamw", ptx: ptx::ADAMW };
const REDUCE: Module = Module { name: "reduce", ptx: ptx::REDUCE };

/// Values of a block, as in `tensors.cuh`.
const BLOCK_VALUES: usize = 4096;

/// `AdamW`'s update of parameters: weights (…), moments (2, …) and gradient (…) of each, contiguous in f32, the first two
/// written, with the coefficients that are its own: keep, rate, `inverse_root`, factor in `adamw.cu`. Those of all are
/// beta1, beta2, eps.
///
/// # Errors
/// When sizes or types disagree.
pub fn adamw<'a>(parameters: impl IntoIterator<Item = ([&'a Tensor; 3], [f32; 4])>, shared: [f32; 3]) -> Result<()> {
    let mut table = Table::default();
    for (tensors, coefficients) in parameters {
        let [weights, moments, gradient] = tensors.map(Tensor::elem_count);
        if weights != gradient || moments != 2 * gradient {
            bail!("{gradient} values of a gradient for {weights} weights");
        }
        let [keep, rate, inverse_root, factor] = coefficients.map(|x| u64::from(x.to_bits()));
        table.push(&tensors, gradient, &[keep | rate << 32, inverse_root | factor << 32])?;
    }
    table.launch(ADAMW, "adamw", None, &shared)
}

/// Sums of the squares of contiguous tensors in f32, several for a large one: (n), f32.
///
/// # Errors
/// When a tensor is of another type, or not on a GPU.
pub fn square_sums(tensors: &[Tensor]) -> Result<Tensor> {
    let mut table = Table::default();
    for tensor in tensors {
        table.push(&[tensor], tensor.elem_count(), &[])?;
    }
    let Some(device) = &table.device else { bail!("there are no tensors to sum") };
    let mut sums = Output::new(device, DType::F32, table.blocks)?;
    table.launch(REDUCE, "square_sums", Some(sums.write()?), &[])?;
    Ok(sums.tensor(&table.blocks.into()))
}

/// How a trial cuts so many values into tensors: of more than a block and of less, where four divide them and where not.
pub fn trial_parts(count: usize) -> [Range<usize>; 3] {
    let first = BLOCK_VALUES + 4;
    [0..first, first..first + 1, first + 1..count]
}

/// What a launch over many tensors reads them by: a row of whole words for each, as the kernel's file declares it.
#[derive(Default)]
struct Table {
    words: Vec<u64>,
    rows: usize,
    blocks: usize,
    device: Option<CudaDevice>,
}

impl Table {
    /// A row: the addresses of tensors, the count of values, the first block, and more.
    fn push(&mut self, tensors: &[&Tensor], count: usize, more: &[u64]) -> Result<()> {
        for tensor in tensors {
            let (storage, layout) = tensor.storage_and_layout();
            let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
                bail!("a CUDA kernel needs contiguous values on its device, got {layout:?}");
            };
            let CudaStorageSlice::F32(values) = &storage.slice else { bail!("the optimiser's kernels take f32") };
            let Some(view) = erased(values, start..end) else { bail!("a layout selects more than its storage has") };
            self.words.push(view.device_ptr(&storage.device.cuda_stream()).0);
            self.device.get_or_insert_with(|| storage.device.clone());
        }
        self.words.extend([count as u64, self.blocks as u64]);
        self.words.extend(more);
        self.rows += 1;
        self.blocks += count.div_ceil(BLOCK_VALUES);
        Ok(())
    }

    /// A kernel with the parameters table, rows, `output`, `coefficients`. Its writes go to tensors that the caller holds, on
    /// the stream that orders them with all other work.
    fn launch(&self, module: Module, name: &str, output: Option<Argument<'_>>, coefficients: &[f32]) -> Result<()> {
        let Some(device) = &self.device else { return Ok(()) };
        let words = device.clone_htod(&self.words)?;
        let Some(view) = erased(&words, 0..words.len()) else { bail!("the table of tensors is not there") };
        let mut arguments = vec![Argument::Read(view), Argument::Size(self.rows)];
        arguments.extend(output);
        arguments.extend(coefficients.iter().copied().map(Argument::Real));
        launch(device, module, name, DType::F32, Grid::Blocks(self.blocks), &mut arguments)
    }
}
