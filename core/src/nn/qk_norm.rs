//! Norms of queries and keys, head by head (Henry et al. 2020; Dehghani et al. 2023).

use super::attention_kernel::AttentionKernel;
use super::layer_norm::LayerNorm;
use crate::kernels::buffer::Buffer;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// One norm of the queries and one of the keys, each over the channels of a head.
#[derive(Debug, Clone)]
pub struct QkNorm {
    /// The norm of the queries.
    pub q: LayerNorm,
    /// The norm of the keys.
    pub k: LayerNorm,
}

/// Queries and keys as they were before, which backward needs.
pub struct Unnormed {
    q: Buffer,
    k: Buffer,
}

impl QkNorm {
    /// Packed q, k, v (B, T, 3 · heads · d) with q and k normed.
    ///
    /// # Errors
    /// When a head has other channels than the norms.
    pub fn forward(&self, qkv: &Tensor, heads: usize) -> Result<Tensor> {
        let (batch, tokens, packed) = qkv.dims3()?;
        let parts = qkv.reshape((batch, tokens, 3, heads, packed / (3 * heads)))?;
        let part = |which: usize| parts.narrow(2, which, 1)?.contiguous();
        let (q, k) = (self.q.forward(&part(0)?)?, self.k.forward(&part(1)?)?);
        Tensor::cat(&[q.to_dtype(qkv.dtype())?, k.to_dtype(qkv.dtype())?, part(2)?], 2)?.reshape(qkv.shape())
    }

    /// Norms q and k, laid out as `sizes` tells, in place.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn forward_values(&self, sizes: &AttentionKernel, qkv: &mut [f32]) -> Result<Unnormed> {
        let norm = |norm: &LayerNorm, rows: Vec<Range<usize>>, qkv: &mut [f32]| -> Result<Buffer> {
            let before = gathered(&rows, qkv);
            let mut after = Buffer::new(before.len());
            norm.forward_values(&before, &mut after)?;
            scatter(&rows, &after, qkv);
            Ok(before)
        };
        let [q, k] = places(sizes);
        Ok(Unnormed { q: norm(&self.q, q, qkv)?, k: norm(&self.k, k, qkv)? })
    }

    /// [`QkNorm::forward_values`] backward: `dqkv` becomes the gradient of what was not yet normed; those of trainable
    /// parameters are left in `store`.
    ///
    /// # Errors
    /// When the parameters are not on the CPU.
    pub fn backward_values(
        &self,
        sizes: &AttentionKernel,
        unnormed: &Unnormed,
        dqkv: &mut [f32],
        store: &mut GradStore,
    ) -> Result<()> {
        let [q, k] = places(sizes);
        for (norm, rows, before) in [(&self.q, q, &unnormed.q), (&self.k, k, &unnormed.k)] {
            let dafter = gathered(&rows, dqkv);
            let mut dbefore = Buffer::new(dafter.len());
            dbefore.fill(0.0);
            norm.backward_values(before, &dafter, &mut dbefore, store)?;
            scatter(&rows, &dbefore, dqkv);
        }
        Ok(())
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self) -> bool {
        self.q.trainable() || self.k.trainable()
    }
}

/// Where the queries of each token lie, of all its heads together, and the keys.
fn places(sizes: &AttentionKernel) -> [Vec<Range<usize>>; 2] {
    let width = sizes.width();
    [(0, sizes.queries), (1, sizes.tokens)].map(|(which, rows)| {
        let first = |image: usize| sizes.places(image, 0)[which];
        let of = |image: usize| (0..rows).map(move |row| first(image).offset + row * first(image).stride);
        (0..sizes.batch).flat_map(of).map(|start| start..start + width).collect()
    })
}

fn gathered(rows: &[Range<usize>], values: &[f32]) -> Buffer {
    let width = rows.first().map_or(1, Range::len);
    let mut together = Buffer::new(rows.len() * width);
    together.chunks_exact_mut(width).zip(rows).for_each(|(row, place)| row.copy_from_slice(&values[place.clone()]));
    together
}

fn scatter(rows: &[Range<usize>], together: &[f32], values: &mut [f32]) {
    let width = rows.first().map_or(1, Range::len);
    together.chunks_exact(width).zip(rows).for_each(|(row, place)| values[place.clone()].copy_from_slice(row));
}
