//! Adds parameters that leave the function as it is, for libraries that always have what a model lacks.

use super::ExportModel;
use crate::backbone::{Layer, Part};
use candle_core::{DType, Device, Result, Tensor};

/// Tokens before the patches, in their order.
const PREFIX: [Layer; 3] = [Layer::ClsToken, Layer::DistToken, Layer::RegToken];

/// Adds a zero bias to the patch embedding when it has none.
pub(super) fn with_patch_bias(model: &mut ExportModel) -> Result<()> {
    if !model.spec.patch.bias {
        model.params.insert(Layer::PatchEmbed.bias(), zeros(&[model.spec.width])?);
        model.spec.patch.bias = true;
    }
    Ok(())
}

/// Adds zero biases to the projections to queries, keys and values when they have none.
pub(super) fn with_qkv_bias(model: &mut ExportModel) -> Result<()> {
    if !model.spec.attention.qkv_bias {
        for block in 0..model.spec.depth {
            model.params.insert(Layer::Qkv.bias().in_block(block), zeros(&[3 * model.spec.width])?);
        }
        model.spec.attention.qkv_bias = true;
    }
    Ok(())
}

/// Adds a LayerScale of one when there is none.
pub(super) fn with_layer_scale(model: &mut ExportModel) -> Result<()> {
    if !model.spec.layer_scale {
        let ones = Tensor::ones(model.spec.width, DType::F32, &Device::Cpu)?;
        for (block, scale) in (0..model.spec.depth).flat_map(|block| [(block, Layer::Scale1), (block, Layer::Scale2)]) {
            model.params.insert(scale.part(Part::Gamma).in_block(block), ones.copy()?);
        }
        model.spec.layer_scale = true;
    }
    Ok(())
}

/// Gives the first `count` tokens a position embedding, and the others none. A token's position is a constant, so it
/// moves into the token, and new ones are zero.
pub(super) fn with_positioned_prefix(model: &mut ExportModel, count: usize) -> Result<()> {
    let width = model.spec.width;
    let Some(table) = model.spec.positions.table_mut() else { return Ok(()) };
    let k = std::mem::replace(&mut table.prefix, count);
    if k == count {
        return Ok(());
    }
    let positions = model.params.tensor(Layer::PosEmbed.whole())?; // (1, k + N, d)
    let patches = positions.narrow(1, k, positions.dim(1)? - k)?;
    let mut first = 0;
    for name in PREFIX.map(Layer::whole) {
        let Some(token) = model.params.get(name) else { continue };
        let tokens = token.dim(1)?;
        let positioned = k.saturating_sub(first).min(tokens);
        if positioned > 0 {
            let moved = (token.narrow(1, 0, positioned)? + positions.narrow(1, first, positioned)?)?;
            let rest = token.narrow(1, positioned, tokens - positioned)?;
            model.params.insert(name, Tensor::cat(&[moved, rest], 1)?);
        }
        first += tokens;
    }
    model.params.insert(Layer::PosEmbed.whole(), Tensor::cat(&[zeros(&[1, count, width])?, patches], 1)?);
    Ok(())
}

pub(super) fn zeros(shape: &[usize]) -> Result<Tensor> {
    Tensor::zeros(shape, DType::F32, &Device::Cpu)
}
