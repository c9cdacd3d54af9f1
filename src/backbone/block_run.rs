//! A block forward and backward on plain values: no graph, each activation kept once, nothing copied that is added anyway.
//!
//! A graph of operations starts every gradient at zeros and adds to it, and keeps what both sides of an operation hold. A
//! block is always the same sequence, so its order is written down here, with what is kept; the arithmetic is
//! the layers'. It serves f32 on the CPU; elsewhere the graph does. Tests compare the two.

mod branch;

use super::block::Block;
use crate::kernels::buffer::Buffer;
use crate::kernels::{fused, read};
use crate::nn::{AdaptedLinear, AttentionKernel, LayerNorm, Mode, SwiGlu, Unnormed};
use branch::{Branch, Which, norm_backward, normed_values};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use std::sync::{Mutex, PoisonError};

/// What a block keeps for backward, for B images of T tokens, of which the first R go on.
pub struct SavedValues {
    /// What entered (B, T, d).
    input: Tensor,
    sizes: AttentionKernel,
    masks: Masks,
    qkv: Buffer,
    /// Queries and keys before their norms, where they have some.
    unnormed: Option<Unnormed>,
    /// Before the projection and its norm (B, R, d).
    attended: Buffer,
    first: Branch,
    /// After attention (B, R, d).
    middle: Buffer,
    /// Before the activation (B, R, h); without the bias where the activation adds it.
    hidden: Buffer,
    second: Branch,
}

/// What the adapters dropped of the inputs of their layers.
struct Masks {
    qkv: Option<Vec<f32>>,
    proj: Option<Vec<f32>>,
    fc1: Option<Vec<f32>>,
    fc2: Option<Vec<f32>>,
}

impl Block {
    /// Whether x and the layers are such that the block runs on plain values.
    pub fn is_plain(&self, x: &Tensor) -> bool {
        fused(x) && self.linears().iter().all(|layer| layer.linear().dtype() == x.dtype())
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self) -> bool {
        self.norm1.trainable()
            || self.norm2.trainable()
            || self.attention.inside_trainable()
            || self.mlp_norm.as_ref().is_some_and(LayerNorm::trainable)
            || self.linears().iter().any(|layer| layer.trainable())
            || [&self.scale1, &self.scale2].into_iter().flatten().any(Tensor::track_op)
    }

    fn linears(&self) -> [&AdaptedLinear; 4] {
        [&self.attention.qkv, &self.attention.proj, &self.fc1, &self.fc2]
    }

    /// A frozen block on plain values, x (B, T, d) to the first `rows` of its tokens (B, rows, d): where x has a graph, one
    /// operation of it.
    ///
    /// # Errors
    /// When x has another width.
    pub fn forward_frozen(&self, x: &Tensor, rows: usize, mode: Mode<'_>) -> Result<Tensor> {
        let (output, kept) = self.values(&x.detach(), rows, mode)?;
        let shape = (kept.sizes.batch, rows, kept.sizes.width());
        if !x.track_op() {
            return Tensor::from_vec(output, shape, x.device());
        }
        let (output, kept) = (Mutex::new(Some(output)), Mutex::new(Some(kept)));
        x.apply_op1(FrozenBlock { block: self.clone(), output, shape: shape.into(), kept })
    }

    /// x (B, T, d) to the first `rows` of its tokens (B, rows, d), and what backward needs.
    ///
    /// # Errors
    /// When x has another width.
    pub fn forward_plain(&self, x: &Tensor, rows: usize, mode: Mode<'_>) -> Result<(Tensor, SavedValues)> {
        let (output, kept) = self.values(x, rows, mode)?;
        let output = Tensor::from_vec(output, (kept.sizes.batch, rows, kept.sizes.width()), x.device())?;
        Ok((output, kept))
    }

    fn values(&self, x: &Tensor, rows: usize, mode: Mode<'_>) -> Result<(Vec<f32>, SavedValues)> {
        let (batch, tokens, width) = x.dims3()?;
        let x = x.contiguous()?;
        let sizes = self.attention.kernel((batch, tokens, width), rows)?;
        let masks = self.masks(&sizes, mode)?;
        let few = sizes.query_values();

        let mut normed = Buffer::new(batch * tokens * width);
        read(&x, |x| self.enter(&self.norm1, x, &mut normed))?;
        let mut qkv = Buffer::new(sizes.values());
        let unnormed = self.attention.project_values(&sizes, &normed, masks.qkv.as_deref(), &mut qkv)?;
        let mut attended = Buffer::new(few);
        self.attention.attend_values(&sizes, &qkv, &mut attended)?;
        let mut middle = Buffer::new(few);
        read(&x, |x| {
            sizes.copy_query_rows(x, &mut middle);
            Ok(())
        })?;
        let projected = normed_values(self.attention.proj_norm.as_ref(), &attended)?;
        let projected = projected.as_deref().unwrap_or(&attended);
        let first = self.add(Which::Attention, (projected, masks.proj.as_deref()), &sizes, &mut middle, mode)?;

        let normed = &mut normed[..few];
        self.enter(&self.norm2, &middle, normed)?;
        let hidden = self.expand(normed, masks.fc1.as_deref(), &sizes)?;
        let mut activated = Buffer::new(few / width * self.fc2.linear().inputs()?);
        self.activate(&hidden, &mut activated)?;
        let mut output = middle.to_vec();
        let multiplied = normed_values(self.mlp_norm.as_ref(), &activated)?;
        let multiplied = multiplied.as_deref().unwrap_or(&activated);
        let second = self.add(Which::Mlp, (multiplied, masks.fc2.as_deref()), &sizes, &mut output, mode)?;
        Ok((output, SavedValues { input: x, sizes, masks, qkv, unnormed, attended, first, middle, hidden, second }))
    }

    /// Backward from the gradient of the output (B, rows, d): to that of the input (B, T, d), when it is `wanted`, with
    /// those of trainable parameters left in `store`.
    ///
    /// # Errors
    /// When the gradient has another shape than the output.
    pub fn backward_plain(
        &self,
        kept: SavedValues,
        dy: &Tensor,
        wanted: bool,
        store: &mut GradStore,
    ) -> Result<Option<Tensor>> {
        let SavedValues { input, sizes, masks, qkv, unnormed, attended, first, middle, hidden, second } = kept;
        let (few, width) = (sizes.query_values(), sizes.width());
        let mut dmiddle = Buffer::new(few);
        read(dy, |dy| {
            dmiddle.copy_from_slice(dy);
            Ok(())
        })?;

        let dbranch = self.branch_gradient(Which::Mlp, &second, &dmiddle, store)?;
        let dbranch = dbranch.as_deref().unwrap_or(&dmiddle);
        let (mask1, mask2) = (masks.fc1.as_deref(), masks.fc2.as_deref());
        let mut activated = Buffer::new(few / width * self.fc2.linear().inputs()?);
        let mut dactivated = Buffer::new(activated.len());
        self.fc2.backward_input(0..width, dbranch, mask2, 0.0, &mut dactivated)?;
        if let Some(norm) = &self.mlp_norm {
            self.activate(&hidden, &mut activated)?;
            dactivated = norm_backward(norm, &activated, &dactivated, store)?;
        }
        let dhidden = self.activate_backward(&hidden, &mut activated, dactivated)?;
        let multiplied = normed_values(self.mlp_norm.as_ref(), &activated)?;
        let multiplied_of = multiplied.as_deref().unwrap_or(&activated);
        self.fc2.backward_weights(&[(0..width, multiplied_of, mask2, dbranch)], store)?;
        drop((multiplied, activated, hidden));
        let expanded = 0..self.fc1.linear().outputs()?;
        let mut normed = Buffer::new(input.elem_count());
        if self.fc1.trainable() {
            self.enter(&self.norm2, &middle, &mut normed[..few])?;
            self.fc1.backward_weights(&[(expanded.clone(), &normed[..few], mask1, &dhidden)], store)?;
        }
        let mut dnormed = Buffer::new(input.elem_count());
        self.fc1.backward_input(expanded, &dhidden, mask1, 0.0, &mut dnormed[..few])?;
        drop(dhidden);
        self.enter_backward(&self.norm2, &middle, &dnormed[..few], &mut dmiddle, store)?;
        drop(middle);

        let dbranch = self.branch_gradient(Which::Attention, &first, &dmiddle, store)?;
        let dbranch = dbranch.as_deref().unwrap_or(&dmiddle);
        let proj = &self.attention.proj;
        let projected = normed_values(self.attention.proj_norm.as_ref(), &attended)?;
        let projected_of = projected.as_deref().unwrap_or(&attended);
        proj.backward_weights(&[(0..width, projected_of, masks.proj.as_deref(), dbranch)], store)?;
        let (below, qkv_trainable) =
            (wanted || (self.norm1.trainable() && !self.behind), self.attention.qkv.trainable());
        if !below && !qkv_trainable && !self.attention.inside_trainable() {
            return Ok(None);
        }
        // The place of what was projected is free for its gradient.
        let (attended, mut dattended) = match projected {
            Some(projected) => (Some(attended), projected),
            None => (None, attended),
        };
        proj.backward_input(0..width, dbranch, masks.proj.as_deref(), 0.0, &mut dattended)?;
        if let (Some(norm), Some(attended)) = (self.attention.proj_norm.as_ref(), attended) {
            dattended = norm_backward(norm, &attended, &dattended, store)?;
        }
        let mut dqkv = Buffer::new(qkv.len());
        self.attention.attend_backward(&sizes, &qkv, &dattended, &mut dqkv, store)?;
        drop((qkv, dattended));
        if qkv_trainable {
            read(&input, |x| self.enter(&self.norm1, x, &mut normed))?;
        }
        let dnormed_of = below.then_some(&mut *dnormed);
        self.attention.project_backward(
            &sizes,
            (&normed, masks.qkv.as_deref(), unnormed.as_ref()),
            &mut dqkv,
            dnormed_of,
            store,
        )?;
        if !below {
            return Ok(None);
        }
        let mut dx = vec![0.0; input.elem_count()];
        sizes.add_to_query_rows(&dmiddle, &mut dx);
        read(&input, |x| self.enter_backward(&self.norm1, x, &dnormed, &mut dx, store))?;
        Tensor::from_vec(dx, input.shape(), input.device()).map(Some)
    }

    /// What the adapters drop.
    fn masks(&self, sizes: &AttentionKernel, mode: Mode<'_>) -> Result<Masks> {
        let of =
            |layer: &AdaptedLinear, tokens: usize| layer.mask((sizes.batch, tokens * layer.linear().inputs()?), mode);
        Ok(Masks {
            qkv: of(&self.attention.qkv, sizes.tokens)?,
            proj: of(&self.attention.proj, sizes.queries)?,
            fc1: of(&self.fc1, sizes.queries)?,
            fc2: of(&self.fc2, sizes.queries)?,
        })
    }

    /// The hidden values of the MLP before its activation.
    fn expand(&self, normed: &[f32], mask: Option<&[f32]>, sizes: &AttentionKernel) -> Result<Buffer> {
        let outputs = self.fc1.linear().outputs()?;
        let mut hidden = Buffer::new(normed.len() / sizes.width() * outputs);
        match self.activation {
            // It adds the bias.
            Some(_) => self.fc1.multiply(0..outputs, normed, mask, sizes.rows_at_once(), 0.0, &mut hidden)?,
            None => self.fc1.forward_values(0..outputs, normed, mask, sizes.rows_at_once(), &mut hidden)?,
        }
        Ok(hidden)
    }

    fn activate(&self, hidden: &[f32], activated: &mut [f32]) -> Result<()> {
        let Some(activation) = self.activation else {
            SwiGlu::new(self.fc1.linear().outputs()?)?.forward_values(hidden, activated);
            return Ok(());
        };
        self.fc1.linear().with_bias(|bias| {
            activation.forward_values(hidden, bias, activated);
            Ok(())
        })
    }

    /// The gradient of the hidden values from that of the activated ones, which are computed again on the way.
    fn activate_backward(&self, hidden: &[f32], activated: &mut [f32], mut dactivated: Buffer) -> Result<Buffer> {
        let Some(activation) = self.activation else {
            let op = SwiGlu::new(self.fc1.linear().outputs()?)?;
            if self.fc2.trainable() {
                op.forward_values(hidden, activated);
            }
            let mut dhidden = Buffer::new(hidden.len());
            op.backward_values(hidden, &dactivated, &mut dhidden);
            return Ok(dhidden);
        };
        self.fc1.linear().with_bias(|bias| {
            activation.backward_values(hidden, bias, activated, &mut dactivated);
            Ok(())
        })?;
        Ok(dactivated)
    }
}

/// A block that trains nothing as one operation of its input. It has run already: its output waits for candle, and what it
/// kept for backward.
struct FrozenBlock {
    block: Block,
    output: Mutex<Option<Vec<f32>>>,
    shape: Shape,
    kept: Mutex<Option<SavedValues>>,
}

fn take<T>(waiting: &Mutex<Option<T>>) -> Result<T> {
    let value = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    value.ok_or_else(|| candle_core::Error::msg("a frozen block goes forward and backward once"))
}

impl CustomOp1 for FrozenBlock {
    fn name(&self) -> &'static str {
        "frozen_block"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(take(&self.output)?), self.shape.clone()))
    }

    fn bwd(&self, _x: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.block.backward_plain(take(&self.kept)?, dy, true, &mut GradStore::default())
    }
}

#[cfg(test)]
mod tests;
