//! Adds parameters that leave the function as it is, for libraries that always have what a model lacks.

use super::ExportModel;
use candle_core::{DType, Device, Result, Tensor};

/// Tokens before the patches, in their order.
const PREFIX: [&str; 3] = ["cls_token", "dist_token", "reg_token"];

/// Adds a zero bias to the patch embedding when it has none.
pub(super) fn with_patch_bias(model: &mut ExportModel) -> Result<()> {
    if !model.spec.patch_bias {
        model.params.insert("patch_embed.proj.bias", zeros(&[model.spec.width])?);
        model.spec.patch_bias = true;
    }
    Ok(())
}

/// Adds zero biases to the projections to queries, keys and values when they have none.
pub(super) fn with_qkv_bias(model: &mut ExportModel) -> Result<()> {
    if !model.spec.qkv_bias {
        for block in 0..model.spec.depth {
            model.params.insert(format!("blocks.{block}.attn.qkv.bias"), zeros(&[3 * model.spec.width])?);
        }
        model.spec.qkv_bias = true;
    }
    Ok(())
}

/// Adds a LayerScale of one when there is none.
pub(super) fn with_layer_scale(model: &mut ExportModel) -> Result<()> {
    if !model.spec.layer_scale {
        for (block, scale) in (0..model.spec.depth).flat_map(|block| [(block, "ls1"), (block, "ls2")]) {
            let ones = Tensor::ones(model.spec.width, DType::F32, &Device::Cpu)?;
            model.params.insert(format!("blocks.{block}.{scale}.gamma"), ones);
        }
        model.spec.layer_scale = true;
    }
    Ok(())
}

/// Gives the first `count` tokens a position embedding, and the others none. A token's position is a constant, so it
/// moves into the token, and new ones are zero.
pub(super) fn with_positioned_prefix(model: &mut ExportModel, count: usize) -> Result<()> {
    let (k, width) = (model.spec.positioned_prefix, model.spec.width);
    if k == count {
        return Ok(());
    }
    let positions = model.params.tensor("pos_embed")?; // (1, k + N, d)
    let patches = positions.narrow(1, k, positions.dim(1)? - k)?;
    let mut first = 0;
    for name in PREFIX {
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
    model.params.insert("pos_embed", Tensor::cat(&[zeros(&[1, count, width])?, patches], 1)?);
    model.spec.positioned_prefix = count;
    Ok(())
}

/// Zeros on the host.
pub(super) fn zeros(shape: &[usize]) -> Result<Tensor> {
    Tensor::zeros(shape, DType::F32, &Device::Cpu)
}
