//! Multi-head softmax attention (Vaswani et al. 2017) on packed queries, keys and values.
//!
//! Between the projection and the softmax families turn queries and keys by their positions: see [`Rotary`].

use super::attention_kernel::{AttentionKernel, causal_mask, composed_attention, composed_weights, unpacked};
use super::dropout::Mode;
use super::layer_norm::LayerNorm;
use super::lora::{AdaptedLinear, Adapter};
use super::qk_norm::{QkNorm, Unnormed};
use super::relative::RelativeBias;
use super::rotary::Rotary;
use crate::kernels::run;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

/// Self-attention with one product for queries, keys and values.
#[derive(Debug, Clone)]
pub struct Attention {
    /// The projection of queries, keys and values (3C, C).
    pub qkv: AdaptedLinear,
    /// The projection of the result (C, C).
    pub proj: AdaptedLinear,
    /// Divides the width.
    pub heads: usize,
    /// Whether a token sees only itself and those before it, as in text towers.
    pub causal: bool,
    /// Norms queries and keys, head by head, before they are turned.
    pub qk_norm: Option<QkNorm>,
    /// Turns queries and keys by their positions.
    pub rotary: Option<Rotary>,
    /// Added to the scores by where tokens lie to each other.
    pub relative: Option<RelativeBias>,
    /// Normalises what was attended before it is projected.
    pub proj_norm: Option<LayerNorm>,
}

impl Attention {
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
        let all = queries == x.dim(1)?;
        let attended = if self.relative.is_none() && (all || (x.device().is_cuda() && !self.causal)) {
            // A GPU's kernel attends all tokens sooner than a composition the first ones.
            let attended = run(&AttentionKernel::of(&qkv, self.heads, self.causal)?, [&qkv])?;
            if all { attended } else { attended.narrow(1, 0, queries)? }
        } else {
            composed_attention(&qkv, self.heads, queries, self.mask(&qkv, queries)?.as_ref())?
        };
        self.proj.forward(&LayerNorm::forward_if(self.proj_norm.as_ref(), attended)?, mode)
    }

    /// What is added to the scores of the first `queries` tokens, as a graph: (queries, T) or (heads, queries, T).
    fn mask(&self, qkv: &Tensor, queries: usize) -> Result<Option<Tensor>> {
        match &self.relative {
            Some(bias) => Ok(Some(bias.tensor()?.narrow(1, 0, queries)?.to_dtype(qkv.dtype())?)),
            None => self.causal.then(|| causal_mask(qkv, queries)).transpose(),
        }
    }

    /// The values that the softmax is computed of, laid out as `sizes` tells, to the attended ones (B, queries, C).
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn attend_values(&self, sizes: &AttentionKernel, qkv: &[f32], attended: &mut [f32]) -> Result<()> {
        let bias = self.relative.as_ref().map(RelativeBias::values).transpose()?;
        sizes.forward_values(qkv, bias.as_deref(), attended)
    }

    /// [`Attention::attend_values`] backward: the gradient of `qkv` to `dqkv`; those of trainable positions are left in `store`.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn attend_backward(
        &self,
        sizes: &AttentionKernel,
        qkv: &[f32],
        dattended: &[f32],
        dqkv: &mut [f32],
        store: &mut GradStore,
    ) -> Result<()> {
        match &self.relative {
            None => sizes.backward_values((qkv, None), dattended, dqkv, None)?,
            Some(relative) => {
                let bias = relative.values()?;
                let mut dbias = vec![0.0; if relative.trainable() { bias.len() } else { 0 }];
                let wanted = relative.trainable().then_some(&mut *dbias);
                sizes.backward_values((qkv, Some(&bias)), dattended, dqkv, wanted)?;
                relative.backward(&dbias, store)?;
            }
        }
        self.rotary.as_ref().map_or(Ok(()), |rotary| rotary.backward(sizes, qkv, dqkv, store))
    }

    /// Whether it trains something between both projections.
    pub fn inside_trainable(&self) -> bool {
        self.proj_norm.as_ref().is_some_and(LayerNorm::trainable)
            || self.qk_norm.as_ref().is_some_and(QkNorm::trainable)
            || self.relative.as_ref().is_some_and(RelativeBias::trainable)
            || self.rotary.as_ref().is_some_and(Rotary::trainable)
    }

    /// x (B, T, C) to what the softmax is computed of, packed (B, T, 3C).
    fn queries_keys_values(&self, x: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        let qkv = self.qkv.forward(x, mode)?;
        let qkv = match &self.qk_norm {
            Some(norms) => norms.forward(&qkv, self.heads)?,
            None => qkv,
        };
        match &self.rotary {
            Some(rotary) => rotary.forward(&qkv, self.heads),
            None => Ok(qkv),
        }
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

    /// The values of x (B, T, C) to those that the softmax is computed of, laid out as `sizes` tells; where queries and keys
    /// are normed, they are returned as they were before. `mask` is the adapter's dropout of x.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn project_values(
        &self,
        sizes: &AttentionKernel,
        x: &[f32],
        mask: Option<&[f32]>,
        qkv: &mut [f32],
    ) -> Result<Option<Unnormed>> {
        let width = sizes.width();
        if sizes.is_whole() {
            self.qkv.forward_values(0..3 * width, x, mask, sizes.rows_at_once(), qkv)?;
        } else {
            let (q, kv) = qkv.split_at_mut(sizes.query_values());
            let (rows, row_mask) = (sizes.query_rows(x), mask.map(|mask| sizes.query_rows(mask)));
            self.qkv.forward_values(0..width, &rows, row_mask.as_deref(), sizes.rows_at_once(), q)?;
            self.qkv.forward_values(width..3 * width, x, mask, usize::MAX, kv)?;
        }
        let unnormed = self.qk_norm.as_ref().map(|norms| norms.forward_values(sizes, qkv)).transpose()?;
        if let Some(rotary) = &self.rotary {
            rotary.turn(sizes, qkv, false)?;
        }
        Ok(unnormed)
    }

    /// [`Attention::project_values`] backward: writes the gradient of x to `dx`, if it is wanted, and leaves those of trainable
    /// parameters in `store`. `dqkv` becomes that of the projection's outputs in place.
    ///
    /// # Errors
    /// When the slices do not fit.
    pub fn project_backward(
        &self,
        sizes: &AttentionKernel,
        (x, mask, unnormed): (&[f32], Option<&[f32]>, Option<&Unnormed>),
        dqkv: &mut [f32],
        dx: Option<&mut [f32]>,
        store: &mut GradStore,
    ) -> Result<()> {
        let width = sizes.width();
        if let Some(rotary) = &self.rotary {
            rotary.turn(sizes, dqkv, true)?;
        }
        if let (Some(norms), Some(unnormed)) = (&self.qk_norm, unnormed) {
            norms.backward_values(sizes, unnormed, dqkv, store)?;
        }
        if sizes.is_whole() {
            self.qkv.backward_weights(&[(0..3 * width, x, mask, dqkv)], store)?;
            return dx.map_or(Ok(()), |dx| self.qkv.backward_input(0..3 * width, dqkv, mask, 0.0, dx));
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
        let mask = self.mask(&qkv, qkv.dim(1)?)?.map(|mask| mask.detach());
        let [q, k, _] = unpacked(&qkv, self.heads)?;
        let of_head = |head: usize| {
            let (q, k) = (q.narrow(1, head, 1)?.squeeze(1)?, k.narrow(1, head, 1)?.squeeze(1)?);
            let mask = mask.as_ref().map(|mask| if mask.rank() == 3 { mask.get(head) } else { Ok(mask.clone()) });
            composed_weights(&q.contiguous()?, &k.contiguous()?, mask.transpose()?.as_ref())
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
