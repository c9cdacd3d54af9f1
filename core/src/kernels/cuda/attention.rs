//! Softmax and multi-head attention on the GPU; see [`crate::nn::softmax_attention`].
//!
//! In f16 and bf16 a kernel on tensor cores does it all and never stores the weights: one forward, two backward. Elsewhere
//! heads are split, cuBLAS multiplies them, and the softmax between the products is a kernel. Either computes the weights
//! again in backward, so that nothing but q, k, v and the result is kept.

use super::{Argument, Grid, Module, Operand, Output, launch, optional, ptx, with};
use crate::kernels::tensor_core_heads;
use candle_core::backend::BackendStorage;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Tensor};

const ATTENTION: Module = Module { name: "attention", ptx: ptx::ATTENTION };
const HEADS: Module = Module { name: "heads", ptx: ptx::HEADS };
const SOFTMAX: Module = Module { name: "softmax", ptx: ptx::SOFTMAX };

/// Rows of a block of `attention.cu`.
const TILE_ROWS: usize = 64;

/// Values that `attention.cu` reads at once.
const PIECE: usize = 8;

/// The kernels of `attention.cu` for heads of that width: forward, and backward for queries and for keys and values.
fn tiled_kernels(head_dim: usize) -> Option<[&'static str; 3]> {
    Some(match tensor_core_heads(head_dim)? {
        32 => ["attention_32", "attention_dq_32", "attention_dkv_32"],
        64 => ["attention_64", "attention_dq_64", "attention_dkv_64"],
        96 => ["attention_96", "attention_dq_96", "attention_dkv_96"],
        _ => ["attention_128", "attention_dq_128", "attention_dkv_128"],
    })
}

/// softmax(scale · scores) over the last dimension.
///
/// # Errors
/// When the type has no kernel.
pub fn softmax(scores: Operand<'_>, scale: f32) -> Result<CudaStorage> {
    let ((rows, width), dtype, device) = (scores.rows(), scores.dtype(), scores.device());
    let mut weights = Output::new(device, dtype, rows * width)?;
    let (read, write) = (scores.read(dtype, rows * width)?, weights.write()?);
    let arguments = &mut [read, write, Argument::Size(rows), Argument::Size(width), Argument::Real(scale)];
    launch(device, SOFTMAX, "softmax", dtype, Grid::Rows(rows), arguments)?;
    Ok(weights.storage)
}

/// The gradient of the scores, given the weights and their gradient.
///
/// # Errors
/// When shapes or types disagree.
pub fn softmax_backward(weights: &Tensor, dweights: &Tensor, scale: f32) -> Result<Tensor> {
    with([weights, dweights], |[of_weights, of_dweights]| {
        let dscores = score_gradient(of_weights, of_dweights, scale)?;
        Ok(dscores.tensor(weights.shape()))
    })
}

fn score_gradient(weights: Operand<'_>, dweights: Operand<'_>, scale: f32) -> Result<Output> {
    let ((rows, width), dtype, device) = (weights.rows(), weights.dtype(), weights.device());
    let mut dscores = Output::new(device, dtype, rows * width)?;
    let arguments = &mut [
        weights.read(dtype, rows * width)?,
        dweights.read(dtype, rows * width)?,
        dscores.write()?,
        Argument::Size(rows),
        Argument::Size(width),
        Argument::Real(scale),
    ];
    launch(device, SOFTMAX, "softmax_dx", dtype, Grid::Rows(rows), arguments)?;
    Ok(dscores)
}

/// Sizes of an attention in which all tokens look at all.
#[derive(Clone, Copy)]
pub struct AttentionSizes {
    /// Images.
    pub batch: usize,
    /// Tokens of an image.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// A batch of matrices, one for each head of each image, within a storage.
#[derive(Clone)]
struct Matrices<'a> {
    storage: &'a CudaStorage,
    layout: Layout,
}

impl Matrices<'_> {
    fn t(&self) -> Result<Self> {
        Ok(Self { storage: self.storage, layout: self.layout.transpose(1, 2)? })
    }

    /// The products of each with its counterpart.
    fn times(&self, other: &Self) -> Result<Output> {
        let (batch, rows, inner) = self.layout.shape().dims3()?;
        let columns = other.layout.shape().dims3()?.2;
        let sizes = (batch, rows, columns, inner);
        let product = self.storage.matmul(other.storage, sizes, &self.layout, &other.layout)?;
        Ok(Output::over(product, (batch, rows, columns)))
    }
}

impl Output {
    fn matrices(&self) -> Matrices<'_> {
        Matrices { storage: &self.storage, layout: self.layout.clone() }
    }
}

impl AttentionSizes {
    fn scale(self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    /// Tells apart what needs a trial of its own: heads of other widths have other kernels.
    pub fn kind(self) -> &'static str {
        tiled_kernels(self.head_dim).map_or("attention", |[forward, ..]| forward)
    }

    /// Values of q, of k, of v, and of the result.
    fn count(self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    /// Packed qkv (B, T, 3 · heads · d) to the attended values (B, T, heads · d).
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(self, qkv: Operand<'_>) -> Result<CudaStorage> {
        if let Some([forward, ..]) = self.tiled(&[qkv]) {
            return self.forward_tiles(forward, qkv, None);
        }
        self.forward_in_products(qkv)
    }

    /// The same, with what spares backward a pass on tensor cores: the logarithms of the sums that the softmax divides by,
    /// to base 2, f32 (B, heads, T).
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward_saving(self, qkv: Operand<'_>) -> Result<(CudaStorage, Option<Tensor>)> {
        let Some([forward, ..]) = self.tiled(&[qkv]) else { return Ok((self.forward_in_products(qkv)?, None)) };
        let mut log_sums = Output::new(qkv.device(), DType::F32, self.batch * self.heads * self.tokens)?;
        let y = self.forward_tiles(forward, qkv, Some(&mut log_sums))?;
        Ok((y, Some(log_sums.tensor(&(self.batch, self.heads, self.tokens).into()))))
    }

    fn forward_in_products(self, qkv: Operand<'_>) -> Result<CudaStorage> {
        let apart = self.split(qkv, 3)?;
        let [q, k, v] = [0, 1, 2].map(|part| self.part(&apart, part));
        let weights = self.weights(&q, &k)?;
        let attended = weights.matrices().times(&v)?;
        let mut y = Output::new(qkv.device(), qkv.dtype(), self.count())?;
        self.merge(&attended, &mut y, (1, 0))?;
        Ok(y.storage)
    }

    /// The gradient of qkv, given the result y, its gradient, and what [`Self::forward_saving`] has saved. With p the
    /// weights: dv = pᵀ dy, dp = dy vᵀ,
    /// ds = p (dp - Σ dp p) / √d, dq = ds k, dk = dsᵀ q.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn backward(self, qkv: &Tensor, y: &Tensor, dy: &Tensor, log_sums: Option<&Tensor>) -> Result<Tensor> {
        with([qkv, y, dy, log_sums.unwrap_or(dy)], |[of_qkv, of_y, of_dy, of_sums]| {
            if let (Some([_, dq, dkv]), Some(_)) = (self.tiled(&[of_qkv, of_y, of_dy]), log_sums) {
                return Ok(self.backward_tiles((dq, dkv), of_qkv, of_y, of_dy, of_sums)?.tensor(qkv.shape()));
            }
            let (apart, dy) = (self.split(of_qkv, 3)?, self.split(of_dy, 1)?);
            let [q, k, v] = [0, 1, 2].map(|part| self.part(&apart, part));
            let dy = self.part(&dy, 0);
            let p = self.weights(&q, &k)?;
            let mut dqkv = Output::new(of_qkv.device(), of_qkv.dtype(), 3 * self.count())?;
            self.merge(&p.matrices().t()?.times(&dy)?, &mut dqkv, (3, 2))?;
            let dp = dy.times(&v.t()?)?;
            let ds = score_gradient(p.operand(), dp.operand(), self.scale())?.shaped(p.layout.shape());
            drop((p, dp)); // the largest values of all
            self.merge(&ds.matrices().times(&k)?, &mut dqkv, (3, 0))?;
            self.merge(&ds.matrices().t()?.times(&q)?, &mut dqkv, (3, 1))?;
            Ok(dqkv.tensor(qkv.shape()))
        })
    }

    /// The kernels on tensor cores, where there are some for these values.
    fn tiled(self, operands: &[Operand<'_>]) -> Option<[&'static str; 3]> {
        let half =
            |operand: &Operand<'_>| matches!(operand.dtype(), DType::F16 | DType::BF16) && operand.aligned(PIECE);
        if operands.iter().all(half) { tiled_kernels(self.head_dim) } else { None }
    }

    /// [`Self::forward`] on tensor cores; leaves in `log_sums`, f32 (B, heads, T), what spares backward a pass.
    fn forward_tiles(self, name: &str, qkv: Operand<'_>, log_sums: Option<&mut Output>) -> Result<CudaStorage> {
        let mut y = Output::new(qkv.device(), qkv.dtype(), self.count())?;
        let log_sums = optional(log_sums.map(Output::write).transpose()?);
        self.launch_tiles(name, [qkv.read(qkv.dtype(), 3 * self.count())?, y.write()?, log_sums], qkv)?;
        Ok(y.storage)
    }

    /// [`Self::backward`] on tensor cores, by the `log_sums` that forward has left.
    fn backward_tiles(
        self,
        (dq, dkv): (&str, &str),
        qkv: Operand<'_>,
        y: Operand<'_>,
        dy: Operand<'_>,
        log_sums: Operand<'_>,
    ) -> Result<Output> {
        let (dtype, device, count) = (qkv.dtype(), qkv.device(), self.count());
        let rows = self.batch * self.heads * self.tokens;
        let mut dqkv = Output::new(device, dtype, 3 * count)?;
        let mut dots = Output::new(device, DType::F32, rows)?;
        let values = || qkv.read(dtype, 3 * count);
        let (y, gradient) = (y.read(dtype, count)?, || dy.read(dtype, count));
        let sums = || log_sums.read(DType::F32, rows);
        self.launch_tiles(dq, [values()?, y, gradient()?, sums()?, dqkv.write()?, dots.write()?], qkv)?;
        self.launch_tiles(dkv, [values()?, gradient()?, sums()?, dots.read()?, dqkv.write()?], qkv)?;
        Ok(dqkv)
    }

    /// Runs a kernel of `attention.cu` with these pointers, for values of the type and on the device of `qkv`.
    fn launch_tiles<const N: usize>(self, name: &str, pointers: [Argument<'_>; N], qkv: Operand<'_>) -> Result<()> {
        let sizes = [self.tokens, self.heads, self.head_dim].map(Argument::Size);
        let mut arguments: Vec<_> = pointers.into_iter().chain(sizes).chain([Argument::Real(self.scale())]).collect();
        let tiles = Grid::Tiles(self.tokens.div_ceil(TILE_ROWS) * self.batch * self.heads);
        launch(qkv.device(), ATTENTION, name, qkv.dtype(), tiles, &mut arguments)
    }

    /// softmax(q kᵀ / √d), (B · heads, T, T).
    fn weights(self, q: &Matrices<'_>, k: &Matrices<'_>) -> Result<Output> {
        let scores = q.times(&k.t()?)?;
        Ok(Output::over(softmax(scores.operand(), self.scale())?, scores.layout.shape()))
    }

    /// Packed (B, T, parts · heads · d) to (parts, B, heads, T, d).
    fn split(self, packed: Operand<'_>, parts: usize) -> Result<Output> {
        let (dtype, device, count) = (packed.dtype(), packed.device(), parts * self.count());
        let mut apart = Output::new(device, dtype, count)?;
        let sizes = [self.tokens, parts, self.heads, self.head_dim].map(Argument::Size);
        let mut arguments: Vec<_> = [packed.read(dtype, count)?, apart.write()?].into_iter().chain(sizes).collect();
        launch(device, HEADS, "split_heads", dtype, self.blocks(), &mut arguments)?;
        drop(arguments);
        Ok(apart)
    }

    /// (B · heads, T, d) to part `part` of `parts` in packed (B, T, parts · heads · d).
    fn merge(self, apart: &Output, packed: &mut Output, (parts, part): (usize, usize)) -> Result<()> {
        let (values, device): (_, &CudaDevice) = (apart.operand(), &apart.storage.device);
        let dtype = values.dtype();
        let sizes = [self.tokens, parts, part, self.heads, self.head_dim].map(Argument::Size);
        let pointers = [values.read(dtype, self.count())?, packed.write()?];
        let mut arguments: Vec<_> = pointers.into_iter().chain(sizes).collect();
        launch(device, HEADS, "merge_heads", dtype, self.blocks(), &mut arguments)
    }

    fn blocks(self) -> Grid {
        Grid::Blocks(self.batch * self.tokens)
    }

    /// A part of what [`Self::split`] gives, as a matrix (T, d) for each head of each image.
    fn part(self, apart: &Output, part: usize) -> Matrices<'_> {
        let shape = Shape::from((self.batch * self.heads, self.tokens, self.head_dim));
        let layout = Layout::contiguous_with_offset(shape, part * self.count());
        Matrices { storage: &apart.storage, layout }
    }
}
