//! Multi-head softmax attention (Vaswani et al. 2017) on packed queries, keys and values.

use super::dropout::Mode;
use super::linear::Linear;
use super::lora::{AdaptedLinear, Adapter};
#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::kernels::gemm::{Mat, matmul};
use crate::kernels::{Fusible, buffer::Buffer, contiguous, lane_max, lane_sum, math, read, run, simd, widened};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use std::ops::Range;

/// Self-attention with one product for queries, keys and values: `qkv` (3C, C), `proj` (C, C).
#[derive(Debug, Clone)]
pub struct Attention {
    qkv: AdaptedLinear,
    proj: AdaptedLinear,
    heads: usize,
    causal: bool,
}

impl Attention {
    /// A layer over existing projections; `heads` divides the width.
    pub fn new(qkv: Linear, proj: Linear, heads: usize) -> Self {
        Self { qkv: qkv.into(), proj: proj.into(), heads, causal: false }
    }

    /// Whether a token sees only itself and those before it, as in text towers.
    #[must_use]
    pub fn causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// Adds adapters to its projections.
    pub fn adapt(&mut self, qkv: Option<Adapter>, proj: Option<Adapter>) {
        self.qkv.adapt(qkv);
        self.proj.adapt(proj);
    }

    /// x (B, T, C) to the first `queries` of its tokens (B, queries, C), which look at all of them.
    ///
    /// # Errors
    /// When the width is not C.
    pub fn forward(&self, x: &Tensor, queries: usize, mode: Mode<'_>) -> Result<Tensor> {
        let qkv = self.qkv.forward(x, mode)?;
        let attended = match self.causal {
            true => causal_attention(&qkv, self.heads)?.narrow(1, 0, queries)?,
            false if queries == x.dim(1)? => softmax_attention(&qkv, self.heads)?,
            false => composed_attention(&qkv, self.heads, queries, None)?,
        };
        self.proj.forward(&attended, mode)
    }

    /// The projections of q, k and v and of the result, when neither has an adapter and every token sees all.
    pub fn plain(&self) -> Option<(&Linear, &Linear)> {
        if self.causal { None } else { self.qkv.plain().zip(self.proj.plain()) }
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// How much each token looks at each, softmax(q kᵀ / √d), as the mean over the heads: x (B, T, C) to (B, T, T), rows
    /// the tokens that look. For showing: one head after another, so that it takes little memory and no gradient.
    ///
    /// # Errors
    /// When the width is not C.
    pub fn mean_weights(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(x, Mode::Eval)?.detach();
        let mask = if self.causal { Some(causal_mask(&qkv)?) } else { None };
        let [q, k, _] = unpacked(&qkv, self.heads)?;
        let of_head = |head: usize| {
            let (q, k) = (q.narrow(1, head, 1)?.squeeze(1)?, k.narrow(1, head, 1)?.squeeze(1)?);
            composed_weights(&q.contiguous()?, &k.contiguous()?, mask.as_ref())
        };
        let sum = (1..self.heads).try_fold(of_head(0)?, |sum, head| sum + of_head(head)?)?;
        sum * (1.0 / self.heads as f64)
    }
}

/// softmax(q kᵀ / √d) v for every head: packed (B, T, 3 · heads · d), in the order q, k, v, to (B, T, heads · d).
///
/// # Errors
/// When the last dimension is not a multiple of 3 · heads.
pub fn softmax_attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (tokens, head_dim) = packed_dims(qkv, heads)?;
    run(&AttentionKernel { batch: qkv.dim(0)?, tokens, queries: tokens, heads, head_dim }, [qkv])
}

/// The same, where no token sees those behind it. Text towers are small and frozen, so it has no kernel of its own.
///
/// # Errors
/// When the last dimension is not a multiple of 3 · heads.
pub fn causal_attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    composed_attention(qkv, heads, qkv.dim(1)?, Some(&causal_mask(qkv)?))
}

/// What is added to the scores (T, T) of `qkv` (B, T, …) to hide from each token those behind it.
fn causal_mask(qkv: &Tensor) -> Result<Tensor> {
    let tokens = qkv.dim(1)?;
    let masked = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
    let mask = Tensor::from_vec((0..tokens * tokens).map(masked).collect(), (tokens, tokens), qkv.device())?;
    mask.to_dtype(qkv.dtype())
}

/// Tokens and width of a head of packed queries, keys and values.
fn packed_dims(qkv: &Tensor, heads: usize) -> Result<(usize, usize)> {
    let (_, tokens, packed) = qkv.dims3()?;
    if heads == 0 || !packed.is_multiple_of(3 * heads) {
        candle_core::bail!("attention with {heads} heads got packed q, k, v of width {packed}");
    }
    Ok((tokens, packed / (3 * heads)))
}

/// Attention of the first `queries` tokens as a composition of differentiable operations; `mask` (queries, T) is added to
/// the scores.
fn composed_attention(qkv: &Tensor, heads: usize, queries: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let (batch, _, packed) = qkv.dims3()?;
    let [q, k, v] = unpacked(qkv, heads)?;
    let q = q.narrow(2, 0, queries)?;
    composed_weights(&q, &k, mask)?.matmul(&v)?.transpose(1, 2)?.reshape((batch, queries, packed / 3))
}

/// Packed (B, T, 3 · heads · d) to queries, keys and values, each (B, heads, T, d).
fn unpacked(qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let (tokens, head_dim) = packed_dims(qkv, heads)?;
    let qkv = qkv.reshape((qkv.dim(0)?, tokens, 3, heads, head_dim))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
    Ok([qkv.get(0)?, qkv.get(1)?, qkv.get(2)?])
}

/// softmax(q kᵀ / √d), each (…, T, d), to (…, T, T).
fn composed_weights(q: &Tensor, k: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (scores, scale) = (q.matmul(&k.t()?)?, (q.dim(D::Minus1)? as f64).powf(-0.5));
    match mask {
        Some(mask) => softmax(&(scores * scale)?.broadcast_add(mask)?),
        None => run(&Softmax { scale }, [&scores]),
    }
}

/// Softmax over the last dimension; candle-nn's has no backward pass. Half-precision scores are summed in f32.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    run(&Softmax { scale: 1.0 }, [scores])
}

/// softmax(scale · scores) over the last dimension.
#[derive(Clone, Copy)]
struct Softmax {
    scale: f64,
}

impl Fusible<1> for Softmax {
    const ON_CPU: bool = false;

    fn kind(&self) -> &'static str {
        "softmax"
    }

    fn kernel(&self, [scores]: [&Tensor; 1]) -> Result<Tensor> {
        scores.contiguous()?.apply_op1(*self)
    }

    fn composed(&self, [scores]: [&Tensor; 1]) -> Result<Tensor> {
        let scaled = if self.scale == 1.0 { scores.clone() } else { (scores * self.scale)? };
        let wide = widened(&scaled)?;
        let shifted = wide.broadcast_sub(&wide.max_keepdim(D::Minus1)?.detach())?.exp()?;
        shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?.to_dtype(scores.dtype())
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        (Self { scale: 0.5 }, [vec![2, 3, 40]])
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("softmax alone has a kernel on GPUs only")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let weights = cuda::attention::softmax(cuda::Operand::new(storage, layout), self.scale as f32)?;
        Ok((weights, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn bwd(&self, _scores: &Tensor, weights: &Tensor, dweights: &Tensor) -> Result<Option<Tensor>> {
        cuda::attention::softmax_backward(weights, dweights, self.scale as f32).map(Some)
    }
}

/// Where the heads of a batch lie, and how many rows ask: attention on plain slices, one head at a time.
///
/// When all tokens ask, rows are packed (B, T, 3 C): q, k, v. When only the first few of each image do, their q (B, few, C)
/// come first, then the k and v of all tokens (B, T, 2 C). Nothing is permuted; of the weights, at most `TILE` values
/// exist at a time, and they are computed again on the way back instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionKernel {
    /// Images.
    pub batch: usize,
    /// Tokens of an image.
    pub tokens: usize,
    /// The first tokens of each image, which ask.
    pub queries: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Attention weights at a time: a quarter of a megabyte, which stays in cache.
const TILE: usize = 1 << 16;

/// Rows of one image and head: they begin at `offset` and lie `stride` apart.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    stride: usize,
}

impl AttentionKernel {
    /// Width of all heads.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Whether all tokens ask.
    pub fn is_whole(&self) -> bool {
        self.queries == self.tokens
    }

    /// Values of the queries, when they lie apart.
    pub fn query_values(&self) -> usize {
        self.batch * self.queries * self.width()
    }

    /// Values of q, k and v together.
    pub fn values(&self) -> usize {
        let keys = self.batch * self.tokens * self.width();
        if self.is_whole() { 3 * keys } else { self.query_values() + 2 * keys }
    }

    /// Where q, k and v of a head lie.
    fn places(&self, image: usize, head: usize) -> [Place; 3] {
        let (width, within) = (self.width(), head * self.head_dim);
        if self.is_whole() {
            let first = image * self.tokens * 3 * width + within;
            return [0, 1, 2].map(|which| Place { offset: first + which * width, stride: 3 * width });
        }
        let keys = self.query_values() + image * self.tokens * 2 * width + within;
        [
            Place { offset: image * self.queries * width + within, stride: width },
            Place { offset: keys, stride: 2 * width },
            Place { offset: keys + width, stride: 2 * width },
        ]
    }

    fn rows<'a>(&self, values: &'a [f32], place: Place, rows: Range<usize>) -> Mat<'a> {
        Mat::strided(&values[place.offset + rows.start * place.stride..], rows.len(), self.head_dim, place.stride)
    }

    /// Every head of every image, and the rows that ask at a time.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
        let (queries, heads) = (self.queries, self.heads);
        let tile = (TILE / self.tokens.max(1)).clamp(1, queries.max(1));
        (0..self.batch).flat_map(move |image| {
            (0..heads).flat_map(move |head| {
                (0..queries).step_by(tile).map(move |first| (image, head, first..queries.min(first + tile)))
            })
        })
    }

    fn tile(&self) -> Buffer {
        Buffer::new((TILE / self.tokens.max(1)).clamp(1, self.queries.max(1)) * self.tokens)
    }

    /// softmax(q kᵀ / √d) of some rows into `weights`, which it returns as a matrix.
    fn weights<'w>(
        &self,
        qkv: &[f32],
        [q, k, _]: [Place; 3],
        rows: Range<usize>,
        weights: &'w mut [f32],
    ) -> Result<Mat<'w>> {
        let (count, tokens) = (rows.len(), self.tokens);
        let (q, k) = (self.rows(qkv, q, rows), self.rows(qkv, k, 0..tokens));
        let weights = &mut weights[..count * tokens];
        matmul(q, k.t(), self.scale(), 0.0, weights, tokens)?;
        simd(
            #[inline(always)]
            || {
                // A loop: `for_each` would be called, not inlined, and so compiled for the baseline.
                for row in weights.chunks_exact_mut(tokens) {
                    softmax_row(row);
                }
            },
        );
        Ok(Mat::new(weights, count, tokens))
    }

    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    /// Where the outputs of a head lie in (B, queries, C).
    fn output(&self, image: usize, head: usize) -> Place {
        let width = self.width();
        Place { offset: image * self.queries * width + head * self.head_dim, stride: width }
    }

    /// The attended values (B, queries, C) to `out`.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn forward(&self, qkv: &[f32], out: &mut [f32]) -> Result<()> {
        let mut weights = self.tile();
        for (image, head, rows) in self.tiles() {
            let places = self.places(image, head);
            let to = self.output(image, head);
            let first = to.offset + rows.start * to.stride;
            let weights = self.weights(qkv, places, rows, &mut weights)?;
            matmul(weights, self.rows(qkv, places[2], 0..self.tokens), 1.0, 0.0, &mut out[first..], to.stride)?;
        }
        Ok(())
    }

    /// The gradient of q, k and v, laid out as they are, to `dqkv`. With p the weights: dv = pᵀ dy, dp = dy vᵀ,
    /// ds = p (dp - Σ dp p), dq = ds k / √d, dk = dsᵀ q / √d.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn backward(&self, qkv: &[f32], dy: &[f32], dqkv: &mut [f32]) -> Result<()> {
        let (tokens, scale) = (self.tokens, self.scale());
        let (mut p, mut ds) = (self.tile(), self.tile());
        for (image, head, rows) in self.tiles() {
            let places @ [q, k, v] = self.places(image, head);
            let (keys, values) = (self.rows(qkv, k, 0..tokens), self.rows(qkv, v, 0..tokens));
            let dy = self.rows(dy, self.output(image, head), rows.clone());
            // Later tiles of a head add to what the first one has written.
            let beta = if rows.start == 0 { 0.0 } else { 1.0 };
            let weights = self.weights(qkv, places, rows.clone(), &mut p)?;
            matmul(weights.t(), dy, 1.0, beta, &mut dqkv[v.offset..], v.stride)?;
            let ds = &mut ds[..rows.len() * tokens];
            matmul(dy, values.t(), 1.0, 0.0, ds, tokens)?;
            softmax_rows_backward(ds, &p, tokens);
            let ds = Mat::new(ds, rows.len(), tokens);
            matmul(ds, keys, scale, 0.0, &mut dqkv[q.offset + rows.start * q.stride..], q.stride)?;
            matmul(ds.t(), self.rows(qkv, q, rows), scale, beta, &mut dqkv[k.offset..], k.stride)?;
        }
        Ok(())
    }
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let max = lane_max(row);
    for x in row.iter_mut() {
        *x = math::exp(*x - max);
    }
    let scale = 1.0 / lane_sum([row], |[x]| x);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

/// dp becomes p (dp - Σ dp p), row by row.
fn softmax_rows_backward(dp: &mut [f32], p: &[f32], tokens: usize) {
    simd(
        #[inline(always)]
        || {
            for (dp, p) in dp.chunks_exact_mut(tokens).zip(p.chunks_exact(tokens)) {
                let dot = lane_sum([dp, p], |[dp, p]| dp * p);
                for (dp, p) in dp.iter_mut().zip(p) {
                    *dp = p * (*dp - dot);
                }
            }
        },
    );
}

/// Of all tokens, as the layer runs it.
impl Fusible<1> for AttentionKernel {
    fn kind(&self) -> &'static str {
        "attention"
    }

    fn kernel(&self, [qkv]: [&Tensor; 1]) -> Result<Tensor> {
        qkv.contiguous()?.apply_op1(*self)
    }

    fn composed(&self, [qkv]: [&Tensor; 1]) -> Result<Tensor> {
        composed_attention(qkv, self.heads, self.queries, None)
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        let (batch, tokens, heads, head_dim) = (2, 40, 3, 8);
        (Self { batch, tokens, queries: tokens, heads, head_dim }, [vec![batch, tokens, 3 * heads * head_dim]])
    }
}

#[cfg(feature = "cuda")]
impl AttentionKernel {
    /// The same sizes for the GPU, where all tokens ask.
    fn on_gpu(self) -> Result<cuda::attention::Attention> {
        if !self.is_whole() {
            candle_core::bail!("the GPU's attention is of all tokens");
        }
        let Self { batch, tokens, heads, head_dim, .. } = self;
        Ok(cuda::attention::Attention { batch, tokens, heads, head_dim })
    }
}

impl CustomOp1 for AttentionKernel {
    fn name(&self) -> &'static str {
        "softmax_attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = vec![0.0; self.query_values()];
        self.forward(contiguous(storage, layout)?, &mut out)?;
        Ok((CpuStorage::F32(out), (self.batch, self.queries, self.width()).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let attended = self.on_gpu()?.forward(cuda::Operand::new(storage, layout))?;
        Ok((attended, (self.batch, self.queries, self.width()).into()))
    }

    fn bwd(&self, qkv: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if qkv.device().is_cuda() {
            return self.on_gpu()?.backward(qkv, dy).map(Some);
        }
        let mut dqkv = vec![0.0; self.values()];
        read(qkv, |qkv| read(dy, |dy| self.backward(qkv, dy, &mut dqkv)))?;
        Tensor::from_vec(dqkv, qkv.shape(), qkv.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::trials;

    #[test]
    fn the_trial_of_its_kernel_is_fair() {
        trials::pass(Softmax { scale: 0.5 }, |dtype| [dtype]);
        let sizes = AttentionKernel { batch: 1, tokens: 1, queries: 1, heads: 1, head_dim: 1 };
        trials::pass(sizes, |dtype| [dtype]);
    }
}
