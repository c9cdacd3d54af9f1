//! Multi-head softmax attention (Vaswani et al. 2017) on packed queries, keys and values.
//!
//! Between the projection and the softmax families turn queries and keys by their positions: see [`Rotary`].

use super::attention_kernel::{AttentionKernel, causal_mask, composed_attention, composed_weights, unpacked};
use super::dropout::Mode;
use super::linear::Linear;
use super::lora::{AdaptedLinear, Adapter};
use super::rotary::Rotary;
use crate::kernels::run;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

/// Self-attention with one product for queries, keys and values: `qkv` (3C, C), `proj` (C, C).
#[derive(Debug, Clone)]
pub struct Attention {
    qkv: AdaptedLinear,
    proj: AdaptedLinear,
    heads: usize,
    causal: bool,
    rotary: Option<Rotary>,
}

impl Attention {
    /// A layer over existing projections; `heads` divides the width.
    pub fn new(qkv: Linear, proj: Linear, heads: usize) -> Self {
        Self { qkv: qkv.into(), proj: proj.into(), heads, causal: false, rotary: None }
    }

    /// Whether a token sees only itself and those before it, as in text towers.
    #[must_use]
    pub fn causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// Turns queries and keys by their positions.
    #[must_use]
    pub fn rotary(mut self, rotary: Option<Rotary>) -> Self {
        self.rotary = rotary;
        self
    }

    /// Adds adapters to its projections.
    pub fn adapt(&mut self, qkv: Option<Adapter>, proj: Option<Adapter>) {
        self.qkv.adapt(qkv);
        self.proj.adapt(proj);
    }

    /// x (B, T, C) to those of the first `queries` of its tokens (B, queries, C), which look at all of them.
    ///
    /// # Errors
    /// When the width is not C.
    pub fn forward(&self, x: &Tensor, queries: usize, mode: Mode<'_>) -> Result<Tensor> {
        let qkv = self.queries_keys_values(x, mode)?;
        let attended = if queries == x.dim(1)? {
            run(&AttentionKernel::of(&qkv, self.heads, self.causal)?, [&qkv])?
        } else {
            composed_attention(&qkv, self.heads, queries, self.causal)?
        };
        self.proj.forward(&attended, mode)
    }

    /// x (B, T, C) to what the softmax is computed of, packed (B, T, 3C).
    fn queries_keys_values(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let qkv = self.qkv.forward(x, mode)?;
        match &self.rotary {
            Some(rotary) => rotary.forward(&qkv, self.heads),
            None => Ok(qkv),
        }
    }

    /// The projection of queries, keys and values.
    pub fn qkv(&self) -> &AdaptedLinear {
        &self.qkv
    }

    /// The projection of the result.
    pub fn proj(&self) -> &AdaptedLinear {
        &self.proj
    }

    /// Sizes of the attention of the first `queries` tokens of `batch` images.
    ///
    /// # Errors
    /// When `width` is not that of the layer.
    pub fn kernel(&self, (batch, tokens, width): (usize, usize, usize), queries: usize) -> Result<AttentionKernel> {
        if self.qkv.linear().inputs()? != width {
            candle_core::bail!("attention over {} features got {width}", self.qkv.linear().inputs()?);
        }
        let (heads, causal) = (self.heads, self.causal);
        Ok(AttentionKernel { batch, tokens, queries, heads, head_dim: width / heads.max(1), causal })
    }

    /// The values of x (B, T, C) to those that the softmax is computed of, laid out as `sizes` tells. `mask` is the
    /// adapter's dropout of x.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn project_values(
        &self,
        sizes: &AttentionKernel,
        x: &[f32],
        mask: Option<&[f32]>,
        qkv: &mut [f32],
    ) -> Result<()> {
        let width = sizes.width();
        if sizes.is_whole() {
            self.qkv.forward_values(0..3 * width, x, mask, sizes.rows_at_once(), qkv)?;
        } else {
            let (q, kv) = qkv.split_at_mut(sizes.query_values());
            let (rows, row_mask) = (sizes.query_rows(x), mask.map(|mask| sizes.query_rows(mask)));
            self.qkv.forward_values(0..width, &rows, row_mask.as_deref(), sizes.rows_at_once(), q)?;
            self.qkv.forward_values(width..3 * width, x, mask, usize::MAX, kv)?;
        }
        if let Some(rotary) = &self.rotary {
            rotary.turn(sizes, qkv, false)?;
        }
        Ok(())
    }

    /// [`Attention::project_values`] backward: writes the gradient of x to `dx`, if it is wanted, and leaves those of trainable
    /// parameters in `store`. `dqkv` is turned back in place.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn project_backward(
        &self,
        sizes: &AttentionKernel,
        (x, mask): (&[f32], Option<&[f32]>),
        dqkv: &mut [f32],
        dx: Option<&mut [f32]>,
        store: &mut GradStore,
    ) -> Result<()> {
        let width = sizes.width();
        if let Some(rotary) = &self.rotary {
            rotary.turn(sizes, dqkv, true)?;
        }
        if sizes.is_whole() {
            self.qkv.backward_weights(&[(0..3 * width, x, mask, dqkv)], store)?;
            return match dx {
                Some(dx) => self.qkv.backward_input(0..3 * width, dqkv, mask, 0.0, dx),
                None => Ok(()),
            };
        }
        let (dq, dkv) = dqkv.split_at(sizes.query_values());
        let (mut rows, row_mask) = (sizes.query_rows(x), mask.map(|mask| sizes.query_rows(mask)));
        let parts = [(0..width, &*rows, row_mask.as_deref(), dq), (width..3 * width, x, mask, dkv)];
        self.qkv.backward_weights(&parts, store)?;
        if let Some(dx) = dx {
            self.qkv.backward_input(width..3 * width, dkv, mask, 0.0, dx)?;
            self.qkv.backward_input(0..width, dq, row_mask.as_deref(), 0.0, &mut rows)?;
            sizes.add_to_query_rows(&rows, dx);
        }
        Ok(())
    }

    /// How much each token looks at each, softmax(q kᵀ / √d), as the mean over the heads: x (B, T, C) to (B, T, T), rows
    /// the tokens that look. For showing: one head after another, so that it takes little memory and no gradient.
    ///
    /// # Errors
    /// When the width is not C.
    pub fn mean_weights(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.queries_keys_values(x, Mode::Eval)?.detach();
        let mask = if self.causal { Some(causal_mask(&qkv, qkv.dim(1)?)?) } else { None };
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
    run(&AttentionKernel::of(qkv, heads, false)?, [qkv])
}
