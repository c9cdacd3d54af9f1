//! The residual branches of a block on plain values: how they begin, end and are added.

use super::super::block::Block;
use crate::kernels::buffer::Buffer;
use crate::kernels::{add_bias, keep, read_optional};
use crate::nn::{AdaptedLinear, AttentionKernel, LayerNorm, Mode, add_branch, branch_backward, drop_path_factors};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

/// How a residual branch was added.
pub(super) struct Branch {
    /// Its values (B, R, d), where backward needs them.
    values: Option<Buffer>,
    /// Drop path's factor of each sample.
    factors: Option<Vec<f32>>,
}

/// The residual branches of a block.
#[derive(Clone, Copy)]
pub(super) enum Which {
    Attention,
    Mlp,
}

/// What a branch ends in.
struct BranchEnd<'a> {
    layer: &'a AdaptedLinear,
    /// Gamma of `LayerScale`, if there is one.
    gamma: Option<&'a Tensor>,
    /// Before it is scaled, if the norms stand there.
    norm: Option<&'a LayerNorm>,
}

impl Block {
    /// The end of a branch.
    fn end(&self, which: Which) -> BranchEnd<'_> {
        let (layer, gamma, norm) = match which {
            Which::Attention => (&self.attention.proj, &self.scale1, &self.norm1),
            Which::Mlp => (&self.fc2, &self.scale2, &self.norm2),
        };
        BranchEnd { layer, gamma: gamma.as_ref(), norm: self.behind.then_some(norm) }
    }

    /// What enters a branch, from the tokens x: normed, unless its norm stands at its end.
    pub(super) fn enter(&self, norm: &LayerNorm, x: &[f32], entered: &mut [f32]) -> Result<()> {
        if self.behind {
            entered.copy_from_slice(x);
            return Ok(());
        }
        norm.forward_values(x, entered)
    }

    /// [`Block::enter`] backward: adds the gradient of x to `dx`.
    pub(super) fn enter_backward(
        &self,
        norm: &LayerNorm,
        x: &[f32],
        dentered: &[f32],
        dx: &mut [f32],
        store: &mut GradStore,
    ) -> Result<()> {
        if self.behind {
            dx.iter_mut().zip(dentered).for_each(|(dx, d)| *dx += d);
            return Ok(());
        }
        norm.backward_values(x, dentered, dx, store)
    }

    /// Adds a residual branch, which ends in a linear layer of x, to `sum` (B, R, d).
    pub(super) fn add(
        &self,
        which: Which,
        (x, mask): (&[f32], Option<&[f32]>),
        sizes: &AttentionKernel,
        sum: &mut [f32],
        mode: Mode<'_>,
    ) -> Result<Branch> {
        let BranchEnd { layer, gamma, norm } = self.end(which);
        let width = layer.linear().outputs()?;
        let factors = drop_path_factors(sizes.batch, self.drop_path, 2 * self.index + which as u64, mode)?;
        if gamma.is_none() && factors.is_none() && norm.is_none() {
            // The product adds to the residual and the bias in place.
            layer.linear().with_bias(|bias| {
                let Some(bias) = bias else { return Ok(()) };
                add_bias(sum, bias);
                Ok(())
            })?;
            layer.multiply(0..width, x, mask, sizes.rows_at_once(), 1.0, sum)?;
            return Ok(Branch { values: None, factors });
        }
        let mut values = Buffer::new(sum.len());
        layer.forward_values(0..width, x, mask, sizes.rows_at_once(), &mut values)?;
        let normed = normed_values(norm, &values)?;
        read_optional(gamma, |gamma| {
            add_branch(sum, normed.as_deref().unwrap_or(&values), gamma, factors.as_deref());
            Ok(())
        })?;
        let needed = norm.is_some() || gamma.is_some_and(Tensor::track_op);
        Ok(Branch { values: needed.then_some(values), factors })
    }

    /// The gradient of a branch's own output from that of the sum; none when they are the same.
    pub(super) fn branch_gradient(
        &self,
        which: Which,
        branch: &Branch,
        dy: &[f32],
        store: &mut GradStore,
    ) -> Result<Option<Buffer>> {
        let BranchEnd { gamma, norm, .. } = self.end(which);
        if gamma.is_none() && branch.factors.is_none() && norm.is_none() {
            return Ok(None);
        }
        let mut gradient = Buffer::new(dy.len());
        gradient.copy_from_slice(dy);
        let (values, factors) = (branch.values.as_deref(), branch.factors.as_deref());
        // What gamma multiplies is normed where there is a norm.
        let normed = match (norm, values, gamma.is_some_and(Tensor::track_op)) {
            (Some(norm), Some(values), true) => normed_values(Some(norm), values)?,
            _ => None,
        };
        let scaled = normed.as_deref().or(values);
        let dgamma = read_optional(gamma, |gamma| Ok(branch_backward(&mut gradient, scaled, gamma, factors)))?;
        if let (Some(gamma), Some(dgamma)) = (gamma, dgamma) {
            keep(store, gamma, || Ok(dgamma))?;
        }
        match (norm, values) {
            (Some(norm), Some(values)) => norm_backward(norm, values, &gradient, store).map(Some),
            _ => Ok(Some(gradient)),
        }
    }
}

/// The rows of x, normalised where there is a norm.
pub(super) fn normed_values(norm: Option<&LayerNorm>, x: &[f32]) -> Result<Option<Buffer>> {
    let Some(norm) = norm else { return Ok(None) };
    let mut normed = Buffer::new(x.len());
    norm.forward_values(x, &mut normed)?;
    Ok(Some(normed))
}

/// The gradient of x from that of its normalised rows.
pub(super) fn norm_backward(norm: &LayerNorm, x: &[f32], dnormed: &[f32], store: &mut GradStore) -> Result<Buffer> {
    let mut dx = Buffer::new(x.len());
    dx.fill(0.0);
    norm.backward_values(x, dnormed, &mut dx, store)?;
    Ok(dx)
}
