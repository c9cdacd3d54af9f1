//! Relative positions (Shaw et al. 2018; `BEiT`, Bao et al. 2021): a learnt number for every two places is added to the scores
//! of attention before the softmax.

use crate::kernels::buffer::Buffer;
use crate::kernels::{keep, read};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// What is added to the scores of all heads.
#[derive(Debug, Clone)]
pub struct RelativeBias {
    /// (entries, heads).
    table: Tensor,
    /// The entry of each two tokens (T, T), in rows those that look; tokens without a place have one behind the last.
    index: Arc<[u32]>,
    tokens: usize,
}

impl RelativeBias {
    /// By a table (entries, heads) and the entry of each two of `tokens` tokens.
    ///
    /// # Errors
    /// When the index has another size, or an entry lies further than one behind the last.
    pub fn new(table: Tensor, index: Arc<[u32]>, tokens: usize) -> Result<Self> {
        let (entries, _) = table.dims2()?;
        if index.len() != tokens * tokens || index.iter().any(|&entry| entry as usize > entries) {
            candle_core::bail!("an index of {} entries among {entries} for {tokens} tokens", index.len());
        }
        Ok(Self { table, index, tokens })
    }

    /// As a graph: (heads, T, T).
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn tensor(&self) -> Result<Tensor> {
        let heads = self.table.dim(1)?;
        let none = Tensor::zeros((1, heads), self.table.dtype(), self.table.device())?;
        let index = Tensor::from_slice(&self.index, self.index.len(), self.table.device())?;
        let pairs = Tensor::cat(&[&self.table, &none], 0)?.index_select(&index, 0)?;
        pairs.reshape((self.tokens, self.tokens, heads))?.permute((2, 0, 1))?.contiguous()
    }

    /// The values (heads, T, T).
    ///
    /// # Errors
    /// When the table is not on the CPU.
    pub fn values(&self) -> Result<Buffer> {
        let (entries, heads) = self.table.dims2()?;
        let mut values = Buffer::new(heads * self.index.len());
        read(&self.table, |table| {
            for (head, values) in values.chunks_exact_mut(self.index.len()).enumerate() {
                for (value, &entry) in values.iter_mut().zip(&*self.index) {
                    let entry = entry as usize;
                    *value = if entry < entries { table[entry * heads + head] } else { 0.0 };
                }
            }
            Ok(())
        })?;
        Ok(values)
    }

    /// Leaves the gradient of the table in `store`, from that of the values (heads, T, T).
    ///
    /// # Errors
    /// When the gradient has another shape.
    pub fn backward(&self, gradient: &[f32], store: &mut GradStore) -> Result<()> {
        let (entries, heads) = self.table.dims2()?;
        keep(store, &self.table, || {
            let mut table = vec![0.0; entries * heads];
            for (head, gradient) in gradient.chunks_exact(self.index.len()).enumerate() {
                for (gradient, &entry) in gradient.iter().zip(&*self.index) {
                    if let Some(sum) = table.get_mut(entry as usize * heads + head) {
                        *sum += gradient;
                    }
                }
            }
            Ok(table)
        })
    }

    /// Whether the table is trained.
    pub fn trainable(&self) -> bool {
        self.table.track_op()
    }
}
