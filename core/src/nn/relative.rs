//! Relative positions (Shaw et al. 2018; `BEiT`, Bao et al. 2021): a learnt number for every two places is added to the scores
//! of attention before the softmax.

use super::linear::Linear;
use crate::kernels::buffer::Buffer;
use crate::kernels::{keep, read};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// What is added to the scores of all heads.
#[derive(Debug, Clone)]
pub struct RelativeBias {
    source: TableSource,
    /// The entry of each two tokens (T, T), in rows those that look; tokens without a place have one behind the last.
    index: Arc<[u32]>,
    tokens: usize,
}

/// Where the table (entries, heads) comes from.
#[derive(Debug, Clone)]
enum TableSource {
    Table(Tensor),
    Mlp(Box<CoordinateMlp>),
}

/// A network that makes the table of how far two places lie apart (Swin v2, Liu et al. 2022): a product, a rectifier and a
/// product.
#[derive(Debug, Clone)]
pub struct CoordinateMlp {
    /// The coordinates of each entry (entries, 2).
    pub coordinates: Tensor,
    /// (hidden, 2).
    pub fc1: Linear,
    /// (heads, hidden).
    pub fc2: Linear,
}

impl CoordinateMlp {
    fn table(&self) -> Result<Tensor> {
        self.fc2.forward(&self.fc1.forward(&self.coordinates)?.relu()?)
    }
}

impl RelativeBias {
    /// By a table (entries, heads) and the entry of each two of `tokens` tokens.
    ///
    /// # Errors
    /// When the index has another size, or an entry lies further than one behind the last.
    pub fn new(table: Tensor, index: Arc<[u32]>, tokens: usize) -> Result<Self> {
        let entries = table.dim(0)?;
        Self { source: TableSource::Table(table), index, tokens }.checked(entries)
    }

    /// The same, with a table that a network makes in each forward pass.
    ///
    /// # Errors
    /// As [`RelativeBias::new`].
    pub fn of_mlp(mlp: CoordinateMlp, index: Arc<[u32]>, tokens: usize) -> Result<Self> {
        let entries = mlp.coordinates.dim(0)?;
        Self { source: TableSource::Mlp(Box::new(mlp)), index, tokens }.checked(entries)
    }

    fn checked(self, entries: usize) -> Result<Self> {
        let (index, tokens) = (&self.index, self.tokens);
        if index.len() != tokens * tokens || index.iter().any(|&entry| entry as usize > entries) {
            candle_core::bail!("an index of {} entries among {entries} for {tokens} tokens", index.len());
        }
        Ok(self)
    }

    /// The table as a graph (entries, heads).
    fn table(&self) -> Result<Tensor> {
        match &self.source {
            TableSource::Table(table) => Ok(table.clone()),
            TableSource::Mlp(mlp) => mlp.table(),
        }
    }

    /// As a graph: (heads, T, T).
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn tensor(&self) -> Result<Tensor> {
        let table = self.table()?;
        let heads = table.dim(1)?;
        let none = Tensor::zeros((1, heads), table.dtype(), table.device())?;
        let index = Tensor::from_slice(&self.index, self.index.len(), table.device())?;
        let pairs = Tensor::cat(&[&table, &none], 0)?.index_select(&index, 0)?;
        pairs.reshape((self.tokens, self.tokens, heads))?.permute((2, 0, 1))?.contiguous()
    }

    /// The values (heads, T, T).
    ///
    /// # Errors
    /// When the table is not on the CPU.
    pub fn values(&self) -> Result<Buffer> {
        let table = self.table()?.detach();
        let (entries, heads) = table.dims2()?;
        let mut values = Buffer::new(heads * self.index.len());
        read(&table, |table| {
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

    /// Leaves the gradients of its parameters in `store`, from that of the values (heads, T, T).
    ///
    /// # Errors
    /// When the gradient has another shape.
    pub fn backward(&self, gradient: &[f32], store: &mut GradStore) -> Result<()> {
        if !self.trainable() {
            return Ok(());
        }
        let table = self.table()?;
        let (entries, heads) = table.dims2()?;
        let sums = || {
            let mut sums = vec![0.0; entries * heads];
            for (head, gradient) in gradient.chunks_exact(self.index.len()).enumerate() {
                for (gradient, &entry) in gradient.iter().zip(&*self.index) {
                    if let Some(sum) = sums.get_mut(entry as usize * heads + head) {
                        *sum += gradient;
                    }
                }
            }
            Ok(sums)
        };
        let TableSource::Mlp(mlp) = &self.source else { return keep(store, &table, sums) };
        let sums = Tensor::from_vec(sums()?, (entries, heads), table.device())?;
        let mut gradients = (table * sums)?.sum_all()?.backward()?;
        for param in mlp.fc1.parameters().chain(mlp.fc2.parameters()) {
            if let Some(gradient) = gradients.remove(param) {
                store.insert(param, gradient.detach());
            }
        }
        Ok(())
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self) -> bool {
        match &self.source {
            TableSource::Table(table) => table.track_op(),
            TableSource::Mlp(mlp) => mlp.fc1.trainable() || mlp.fc2.trainable(),
        }
    }
}
