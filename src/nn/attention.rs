//! Multi-head softmax attention (Vaswani et al. 2017) on packed queries, keys and values.

use super::dropout::Mode;
use super::kernels::{contiguous, fused, gemm::Mat, gemm::matmul, lane_sum, math, read, simd, widened};
use super::linear::Linear;
use super::lora::{AdaptedLinear, Adapter};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

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

    /// x (B, T, C) to (B, T, C).
    ///
    /// # Errors
    /// When the width is not C.
    pub fn forward(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let qkv = self.qkv.forward(x, mode)?;
        let attended =
            if self.causal { causal_attention(&qkv, self.heads)? } else { softmax_attention(&qkv, self.heads)? };
        self.proj.forward(&attended, mode)
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
    if fused(qkv) {
        return qkv.contiguous()?.apply_op1(PackedAttention { tokens, heads, head_dim });
    }
    composed_attention(qkv, heads, None)
}

/// The same, where no token sees those behind it. Text towers are small and frozen, so it has no kernel of its own.
///
/// # Errors
/// When the last dimension is not a multiple of 3 · heads.
pub fn causal_attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    composed_attention(qkv, heads, Some(&causal_mask(qkv)?))
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

/// Attention as a composition of differentiable operations; `mask` (T, T) is added to the scores.
fn composed_attention(qkv: &Tensor, heads: usize, mask: Option<&Tensor>) -> Result<Tensor> {
    let (batch, tokens, packed) = qkv.dims3()?;
    let [q, k, v] = unpacked(qkv, heads)?;
    composed_weights(&q, &k, mask)?.matmul(&v)?.transpose(1, 2)?.reshape((batch, tokens, packed / 3))
}

/// Packed (B, T, 3 · heads · d) to queries, keys and values, each (B, heads, T, d).
fn unpacked(qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let (tokens, head_dim) = packed_dims(qkv, heads)?;
    let qkv = qkv.reshape((qkv.dim(0)?, tokens, 3, heads, head_dim))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
    Ok([qkv.get(0)?, qkv.get(1)?, qkv.get(2)?])
}

/// softmax(q kᵀ / √d), each (…, T, d), to (…, T, T).
fn composed_weights(q: &Tensor, k: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let mut scores = (q.matmul(&k.t()?)? * (q.dim(D::Minus1)? as f64).powf(-0.5))?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    softmax(&scores)
}

/// Softmax over the last dimension as a composition of differentiable operations; candle-nn's has no backward pass.
/// Half-precision scores are summed in f32.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    let wide = widened(scores)?;
    let shifted = wide.broadcast_sub(&wide.max_keepdim(D::Minus1)?.detach())?.exp()?;
    shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?.to_dtype(scores.dtype())
}

/// Attention that reads and writes the packed rows in place, one head at a time. The weights (T, T) of a head stay in
/// cache and are computed again on the way back instead of being kept.
struct PackedAttention {
    tokens: usize,
    heads: usize,
    head_dim: usize,
}

impl PackedAttention {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// A (T, d) view of `rows` for one head, where rows lie `stride` values apart.
    fn view<'a>(&self, rows: &'a [f32], offset: usize, stride: usize) -> Mat<'a> {
        Mat::strided(&rows[offset..], self.tokens, self.head_dim, stride)
    }

    /// Fills `weights` (T, T) with softmax(q kᵀ / √d) of the head at `offset` of one packed image.
    fn weights(&self, packed: &[f32], offset: usize, weights: &mut [f32]) -> Result<()> {
        let width = self.width();
        let (q, k) = (self.view(packed, offset, 3 * width), self.view(packed, offset + width, 3 * width));
        matmul(q, k.t(), self.scale(), 0.0, weights, self.tokens)?;
        simd(|| weights.chunks_exact_mut(self.tokens).for_each(softmax_row));
        Ok(())
    }

    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    fn forward(&self, qkv: &[f32]) -> Result<Vec<f32>> {
        let (tokens, width) = (self.tokens, self.width());
        let mut out = vec![0.0; qkv.len() / 3];
        let mut weights = vec![0.0; tokens * tokens];
        for (packed, out) in qkv.chunks_exact(tokens * 3 * width).zip(out.chunks_exact_mut(tokens * width)) {
            for offset in (0..width).step_by(self.head_dim) {
                self.weights(packed, offset, &mut weights)?;
                let v = self.view(packed, offset + 2 * width, 3 * width);
                matmul(Mat::new(&weights, tokens, tokens), v, 1.0, 0.0, &mut out[offset..], width)?;
            }
        }
        Ok(out)
    }

    /// With p the weights: dv = pᵀ dy, dp = dy vᵀ, ds = p (dp - Σ dp p), dq = ds k / √d, dk = dsᵀ q / √d.
    fn backward(&self, qkv: &[f32], dy: &[f32]) -> Result<Vec<f32>> {
        let (tokens, width, scale) = (self.tokens, self.width(), self.scale());
        let packed_width = 3 * width;
        let mut dqkv = vec![0.0; qkv.len()];
        let (mut p, mut ds) = (vec![0.0; tokens * tokens], vec![0.0; tokens * tokens]);
        let image = tokens * packed_width;
        for ((packed, dy), dpacked) in
            qkv.chunks_exact(image).zip(dy.chunks_exact(tokens * width)).zip(dqkv.chunks_exact_mut(image))
        {
            for offset in (0..width).step_by(self.head_dim) {
                self.weights(packed, offset, &mut p)?;
                let dy = self.view(dy, offset, width);
                let weights = Mat::new(&p, tokens, tokens);
                let (q, k, v) = (
                    self.view(packed, offset, packed_width),
                    self.view(packed, offset + width, packed_width),
                    self.view(packed, offset + 2 * width, packed_width),
                );
                matmul(weights.t(), dy, 1.0, 0.0, &mut dpacked[offset + 2 * width..], packed_width)?;
                matmul(dy, v.t(), 1.0, 0.0, &mut ds, tokens)?;
                simd(|| {
                    for (ds, p) in ds.chunks_exact_mut(tokens).zip(p.chunks_exact(tokens)) {
                        softmax_row_backward(ds, p);
                    }
                });
                let ds = Mat::new(&ds, tokens, tokens);
                matmul(ds, k, scale, 0.0, &mut dpacked[offset..], packed_width)?;
                matmul(ds.t(), q, scale, 0.0, &mut dpacked[offset + width..], packed_width)?;
            }
        }
        Ok(dqkv)
    }
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    for x in row.iter_mut() {
        *x = math::exp(*x - max);
    }
    let scale = 1.0 / lane_sum(row.len(), |i| row[i]);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

#[inline(always)]
fn softmax_row_backward(dp: &mut [f32], p: &[f32]) {
    let dot = lane_sum(p.len(), |i| dp[i] * p[i]);
    for (dp, p) in dp.iter_mut().zip(p) {
        *dp = p * (*dp - dot);
    }
}

impl CustomOp1 for PackedAttention {
    fn name(&self) -> &'static str {
        "softmax_attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, tokens, _) = layout.shape().dims3()?;
        let out = self.forward(contiguous(storage, layout)?)?;
        Ok((CpuStorage::F32(out), (batch, tokens, self.width()).into()))
    }

    fn bwd(&self, qkv: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dqkv = read(qkv, |qkv| read(dy, |dy| self.backward(qkv, dy)))?;
        Tensor::from_vec(dqkv, qkv.shape(), qkv.device()).map(Some)
    }
}
