//! Softmax and multi-head attention on the GPU; see [`crate::nn::softmax_attention`].
//!
//! Heads are split, cuBLAS multiplies them, and the softmax between the products is a kernel. The weights are computed
//! again in backward, so that nothing but q, k and v is kept.

use super::{Argument, Grid, Module, Operand, Output, launch, ptx, with};
use candle_core::backend::BackendStorage;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Shape, Tensor};

const HEADS: Module = Module { name: "heads", ptx: ptx::HEADS };
const SOFTMAX: Module = Module { name: "softmax", ptx: ptx::SOFTMAX };

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

    /// Values of q, of k, of v, and of the result.
    fn count(self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    /// Packed qkv (B, T, 3 · heads · d) to the attended values (B, T, heads · d).
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn forward(self, qkv: Operand<'_>) -> Result<CudaStorage> {
        let apart = self.split(qkv, 3)?;
        let [q, k, v] = [0, 1, 2].map(|part| self.part(&apart, part));
        let weights = self.weights(&q, &k)?;
        let attended = weights.matrices().times(&v)?;
        let mut y = Output::new(qkv.device(), qkv.dtype(), self.count())?;
        self.merge(&attended, &mut y, (1, 0))?;
        Ok(y.storage)
    }

    /// The gradient of qkv. With p the weights: dv = pᵀ dy, dp = dy vᵀ, ds = p (dp - Σ dp p) / √d, dq = ds k, dk = dsᵀ q.
    ///
    /// # Errors
    /// When shapes disagree.
    pub fn backward(self, qkv: &Tensor, dy: &Tensor) -> Result<Tensor> {
        with([qkv, dy], |[of_qkv, of_dy]| {
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
