//! Multi-head softmax attention on plain slices.

use super::softmax::{softmax, softmax_row, softmax_rows_backward};
use crate::kernels::gemm::{Mat, matmul};
use crate::kernels::{Operation, buffer::Buffer, simd};
#[cfg(feature = "cuda")]
use crate::kernels::{cuda, tape};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{D, Result, Shape, Tensor};
use std::ops::Range;

/// Where the heads of a batch lie, and how many tokens are queries: attention on plain slices, one head at a time.
///
/// When all tokens are queries, rows are packed (B, T, 3 C): q, k, v. When only the first few of each image are, their q
/// (B, few, C) come first, then the k and v of all tokens (B, T, 2 C). Nothing is permuted; of the weights, at most `TILE` values
/// exist at a time, and backward computes them again instead of keeping them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionKernel {
    /// Images.
    pub batch: usize,
    /// Tokens of an image.
    pub tokens: usize,
    /// The query tokens, the first of each image.
    pub queries: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
}

/// Attention weights at a time: a quarter of a megabyte, which stays in cache.
const TILE: usize = 1 << 16;

/// Rows of one image and head: they begin at `offset` and lie `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Strided {
    pub offset: usize,
    pub stride: usize,
}

impl AttentionKernel {
    /// Sizes of the attention of all tokens in packed (B, T, 3 · heads · d).
    pub(super) fn of(qkv: &Tensor, heads: usize, causal: bool) -> Result<Self> {
        let (batch, tokens, packed) = qkv.dims3()?;
        if heads == 0 || !packed.is_multiple_of(3 * heads) {
            candle_core::bail!("attention with {heads} heads got packed q, k, v of width {packed}");
        }
        Ok(Self { batch, tokens, queries: tokens, heads, head_dim: packed / (3 * heads), causal })
    }

    /// Width of all heads.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Whether all tokens are queries.
    pub fn is_whole(&self) -> bool {
        self.queries == self.tokens
    }

    /// Rows of a product behind the attention: all, or those of an image. Products of few rows round differently for each
    /// number of them, so an image's own must not depend on the batch.
    pub fn rows_at_once(&self) -> usize {
        if self.is_whole() { usize::MAX } else { self.queries }
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
    pub(super) fn places(&self, image: usize, head: usize) -> [Strided; 3] {
        let (width, within) = (self.width(), head * self.head_dim);
        if self.is_whole() {
            let first = image * self.tokens * 3 * width + within;
            return [0, 1, 2].map(|which| Strided { offset: first + which * width, stride: 3 * width });
        }
        let keys = self.query_values() + image * self.tokens * 2 * width + within;
        [
            Strided { offset: image * self.queries * width + within, stride: width },
            Strided { offset: keys, stride: 2 * width },
            Strided { offset: keys + width, stride: 2 * width },
        ]
    }

    fn rows<'a>(&self, values: &'a [f32], place: Strided, rows: Range<usize>) -> Mat<'a> {
        Mat::strided(&values[place.offset + rows.start * place.stride..], rows.len(), self.head_dim, place.stride)
    }

    /// Every head of every image, and the queries at a time.
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

    /// How many tokens the queries of a tile see at most.
    fn seen(&self, rows: &Range<usize>) -> usize {
        if self.causal { rows.end } else { self.tokens }
    }

    /// softmax(q kᵀ / √d + bias) of some rows over the tokens they see, into `weights`, which it returns as a matrix.
    fn weights<'w>(
        &self,
        (qkv, bias): (&[f32], Option<&[f32]>),
        [q, k, _]: [Strided; 3],
        rows: Range<usize>,
        weights: &'w mut [f32],
    ) -> Result<Mat<'w>> {
        let (count, tokens) = (rows.len(), self.seen(&rows));
        let (q, k) = (self.rows(qkv, q, rows.clone()), self.rows(qkv, k, 0..tokens));
        let weights = &mut weights[..count * tokens];
        matmul(q, k.t(), self.scale(), 0.0, weights, tokens)?;
        simd!({
            // A loop: `for_each` would be called, not inlined, and so compiled for the baseline.
            for (row, token) in weights.chunks_exact_mut(tokens).zip(rows) {
                if let Some(bias) = bias {
                    let bias = &bias[token * self.tokens..][..tokens];
                    for (score, bias) in row.iter_mut().zip(bias) {
                        *score += bias;
                    }
                }
                let (seen, hidden) = row.split_at_mut(if self.causal { token + 1 } else { tokens });
                softmax_row(seen);
                hidden.fill(0.0);
            }
        });
        Ok(Mat::new(weights, count, tokens))
    }

    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    /// Where the outputs of a head lie in (B, queries, C).
    fn output(&self, image: usize, head: usize) -> Strided {
        let width = self.width();
        Strided { offset: image * self.queries * width + head * self.head_dim, stride: width }
    }

    /// What is added to the scores of a head, of what is added to those of all (heads, T, T).
    fn of_head(&self, head: usize) -> Range<usize> {
        let pairs = self.tokens * self.tokens;
        head * pairs..(head + 1) * pairs
    }

    /// The attended values (B, queries, C) to `out`. `bias` (heads, T, T) is added to the scores.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn forward_values(&self, qkv: &[f32], bias: Option<&[f32]>, out: &mut [f32]) -> Result<()> {
        let mut weights = self.tile();
        for (image, head, rows) in self.tiles() {
            let places = self.places(image, head);
            let to = self.output(image, head);
            let first = to.offset + rows.start * to.stride;
            let values = self.rows(qkv, places[2], 0..self.seen(&rows));
            let bias = bias.map(|bias| &bias[self.of_head(head)]);
            let weights = self.weights((qkv, bias), places, rows, &mut weights)?;
            matmul(weights, values, 1.0, 0.0, &mut out[first..], to.stride)?;
        }
        Ok(())
    }

    /// The gradient of q, k and v, laid out as they are, to `dqkv`. With p the weights: dv = pᵀ dy, dp = dy vᵀ,
    /// ds = p (dp - Σ dp p), dq = ds k / √d, dk = dsᵀ q / √d. That of `bias` is Σ ds over the images, added to `dbias`.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn backward_values(
        &self,
        (qkv, bias): (&[f32], Option<&[f32]>),
        dy: &[f32],
        dqkv: &mut [f32],
        mut dbias: Option<&mut [f32]>,
    ) -> Result<()> {
        let (mut p, mut ds, scale) = (self.tile(), self.tile(), self.scale());
        if self.causal {
            dqkv.fill(0.0); // the first tile does not reach all tokens
        }
        for (image, head, rows) in self.tiles() {
            let tokens = self.seen(&rows);
            let places @ [q, k, v] = self.places(image, head);
            let (keys, values) = (self.rows(qkv, k, 0..tokens), self.rows(qkv, v, 0..tokens));
            let dy = self.rows(dy, self.output(image, head), rows.clone());
            // Later tiles of a head add to what the first one has written.
            let beta = if rows.start == 0 { 0.0 } else { 1.0 };
            let bias = bias.map(|bias| &bias[self.of_head(head)]);
            let weights = self.weights((qkv, bias), places, rows.clone(), &mut p)?;
            matmul(weights.t(), dy, 1.0, beta, &mut dqkv[v.offset..], v.stride)?;
            let ds = &mut ds[..rows.len() * tokens];
            matmul(dy, values.t(), 1.0, 0.0, ds, tokens)?;
            softmax_rows_backward(ds, &p, tokens);
            if let Some(dbias) = &mut dbias {
                let dbias = &mut dbias[self.of_head(head)];
                for (ds, token) in ds.chunks_exact(tokens).zip(rows.clone()) {
                    let dbias = &mut dbias[token * self.tokens..][..tokens];
                    dbias.iter_mut().zip(ds).for_each(|(sum, ds)| *sum += ds);
                }
            }
            let ds = Mat::new(ds, rows.len(), tokens);
            matmul(ds, keys, scale, 0.0, &mut dqkv[q.offset + rows.start * q.stride..], q.stride)?;
            matmul(ds.t(), self.rows(qkv, q, rows), scale, beta, &mut dqkv[k.offset..], k.stride)?;
        }
        Ok(())
    }

    /// The first rows of each image, those of the query tokens, one image after another.
    pub fn query_rows(&self, values: &[f32]) -> Buffer {
        let mut rows = Buffer::new(self.query_values());
        self.copy_query_rows(values, &mut rows);
        rows
    }

    /// [`AttentionKernel::query_rows`] to `rows`.
    pub fn copy_query_rows(&self, values: &[f32], rows: &mut [f32]) {
        let (image, few) = (self.tokens * self.width(), self.queries * self.width());
        for (image, rows) in values.chunks_exact(image).zip(rows.chunks_exact_mut(few)) {
            rows.copy_from_slice(&image[..few]);
        }
    }

    /// Adds `rows` to those of the query tokens.
    pub fn add_to_query_rows(&self, rows: &[f32], values: &mut [f32]) {
        let (image, few) = (self.tokens * self.width(), self.queries * self.width());
        for (image, rows) in values.chunks_exact_mut(image).zip(rows.chunks_exact(few)) {
            image[..few].iter_mut().zip(rows).for_each(|(value, row)| *value += row);
        }
    }
}

/// What is added to the scores (queries, T) of `qkv` (B, T, …) to hide from each token those behind it.
pub(super) fn causal_mask(qkv: &Tensor, queries: usize) -> Result<Tensor> {
    let tokens = qkv.dim(1)?;
    let masked = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
    let mask = Tensor::from_vec((0..queries * tokens).map(masked).collect(), (queries, tokens), qkv.device())?;
    mask.to_dtype(qkv.dtype())
}

/// Attention of the first `queries` tokens as a composition of differentiable operations; `mask` is added to the scores.
pub(super) fn composed_attention(qkv: &Tensor, heads: usize, queries: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let (batch, _, packed) = qkv.dims3()?;
    let [q, k, v] = unpacked(qkv, heads)?;
    let q = q.narrow(2, 0, queries)?;
    composed_weights(&q, &k, mask)?.matmul(&v)?.transpose(1, 2)?.reshape((batch, queries, packed / 3))
}

/// Packed (B, T, 3 · heads · d) to queries, keys and values, each (B, heads, T, d).
pub(super) fn unpacked(qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let AttentionKernel { batch, tokens, head_dim, .. } = AttentionKernel::of(qkv, heads, false)?;
    let qkv = qkv.reshape((batch, tokens, 3, heads, head_dim))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
    Ok([qkv.get(0)?, qkv.get(1)?, qkv.get(2)?])
}

/// softmax(q kᵀ / √d), each (…, T, d), to (…, T, T); `mask` is added to the scores.
pub(super) fn composed_weights(q: &Tensor, k: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (scores, scale) = (q.matmul(&k.t()?)?, (q.dim(D::Minus1)? as f64).powf(-0.5));
    match mask {
        Some(mask) => softmax(&(scores * scale)?.broadcast_add(mask)?, 1.0),
        None => softmax(&scores, scale),
    }
}

/// The attention of all tokens.
impl Operation<1> for AttentionKernel {
    fn name(&self) -> &'static str {
        #[cfg(feature = "cuda")]
        if !self.causal {
            return self.on_cuda().kind();
        }
        if self.causal { "causal attention" } else { "attention" }
    }

    fn shape(&self, [qkv]: [&Shape; 1]) -> Result<Shape> {
        if !self.is_whole() || qkv.elem_count() != self.values() {
            candle_core::bail!("attention {self:?} got packed q, k, v of shape {qkv:?}");
        }
        Ok((self.batch, self.tokens, self.width()).into())
    }

    fn forward(&self, [qkv]: [&[f32]; 1], y: &mut [f32]) -> Result<()> {
        self.forward_values(qkv, None, y)
    }

    fn backward(&self, [qkv]: [&[f32]; 1], _y: &[f32], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        let mut dqkv = vec![0.0; self.values()];
        self.backward_values((qkv, None), dy, &mut dqkv, None)?;
        Ok([Some(dqkv)])
    }

    /// Causal towers are small, so they have none.
    fn on_gpu(&self) -> bool {
        !self.causal
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, [qkv]: [cuda::Operand<'_>; 1]) -> Result<CudaStorage> {
        self.on_cuda().forward(qkv)
    }

    #[cfg(feature = "cuda")]
    fn cuda_forward_saving(&self, [qkv]: [cuda::Operand<'_>; 1]) -> Result<(CudaStorage, Option<Tensor>)> {
        self.on_cuda().forward_saving(qkv)
    }

    #[cfg(feature = "cuda")]
    fn cuda_backward_with(
        &self,
        [qkv]: [&Tensor; 1],
        y: &Tensor,
        dy: &Tensor,
        log_sums: Option<&Tensor>,
        before: Option<&Tensor>,
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([tape::sum(Some(self.on_cuda().backward(qkv, y, dy, log_sums)?), before)?])
    }

    fn composed(&self, [qkv]: [&Tensor; 1]) -> Result<Tensor> {
        let mask = self.causal.then(|| causal_mask(qkv, self.queries)).transpose()?;
        composed_attention(qkv, self.heads, self.queries, mask.as_ref())
    }

    fn small(&self) -> (Self, [Vec<usize>; 1]) {
        // Heads as wide as these, for which the GPU's kernel is chosen, and tokens in more than one of its tiles.
        let (batch, tokens, heads, head_dim) = (2, 70, 3, self.head_dim);
        let small = Self { batch, tokens, queries: tokens, heads, head_dim, causal: self.causal };
        (small, [vec![batch, tokens, 3 * heads * head_dim]])
    }
}

#[cfg(feature = "cuda")]
impl AttentionKernel {
    fn on_cuda(self) -> cuda::attention::AttentionSizes {
        let Self { batch, tokens, heads, head_dim, .. } = self;
        cuda::attention::AttentionSizes { batch, tokens, heads, head_dim }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many tokens that a head takes several tiles.
    #[test]
    fn causal_tiles_add_up() {
        let tokens = 300;
        let sizes = AttentionKernel { batch: 1, tokens, queries: tokens, heads: 1, head_dim: 4, causal: true };
        assert!(sizes.tiles().count() > 1);
        let wave = |count: usize, phase: f32| (0..count).map(|i| (i as f32 * 1.7 + phase).sin()).collect::<Vec<_>>();
        let (qkv, dy) = (wave(sizes.values(), 0.0), wave(sizes.query_values(), 0.5));
        let device = candle_core::Device::Cpu;
        let tensor = |values: &[f32], width| {
            let tensor = Tensor::from_slice(values, (1, tokens, width), &device).unwrap();
            tensor.to_dtype(candle_core::DType::F64).unwrap()
        };
        let var = candle_core::Var::from_tensor(&tensor(&qkv, 12)).unwrap();
        let expected = sizes.composed([var.as_tensor()]).unwrap();
        let loss = (&expected * tensor(&dy, 4)).unwrap().sum_all().unwrap();
        let gradient = loss.backward().unwrap().remove(var.as_tensor()).unwrap();
        let (mut y, mut dqkv) = (vec![0.0; dy.len()], vec![f32::NAN; qkv.len()]);
        sizes.forward_values(&qkv, None, &mut y).unwrap();
        sizes.backward_values((&qkv, None), &dy, &mut dqkv, None).unwrap();
        for (values, expected) in [(y, expected), (dqkv, gradient)] {
            for (value, expected) in values.iter().zip(expected.flatten_all().unwrap().to_vec1::<f64>().unwrap()) {
                assert!((f64::from(*value) - expected).abs() < 1e-5, "{value} instead of {expected}");
            }
        }
    }
}
