//! From the tokens of the last block to the features that feed the head.
//!
//! The rule is: what the library feeds to its classifier. So a distilled `DeiT` gives the mean of its two tokens (timm's
//! `pre_logits`), `DINOv2` in transformers the class token beside the mean patch, `SigLIP` its attention pooling.

use super::block::norm;
use super::name::Layer;
use super::params::Params;
use super::poolings::{OF_PATCHES, OF_TILES, Pool, TILE_POOLS, gated_shapes};
use super::spec::{PoolQuery, VitSpec};
use crate::config::TilePool;
use crate::nn::pool::{GatedPool, Mahalanobis, SideBySide, TokenPool};
use crate::nn::{Activation, AttentionPool};
use crate::rng::{Purpose, Stream};
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;

/// Fresh parameters of gated attention, by Xavier's rule with zero biases.
///
/// # Errors
/// When the host is out of memory.
pub(super) fn fresh_gate(layers: [Layer; 3], width: usize, seed: u64, params: &mut Params) -> Result<()> {
    let device = &candle_core::Device::Cpu;
    for (layer, (name, shape)) in gated_shapes(layers, width).into_iter().enumerate() {
        let tensor = match shape.as_slice() {
            &[out, inner] => {
                let mut stream = Stream::new(seed, Purpose::Init, &[u64::MAX, layer as u64]);
                let deviation = (2.0 / (out + inner) as f64).sqrt();
                let values: Vec<f32> = (0..out * inner).map(|_| (stream.normal() * deviation) as f32).collect();
                Tensor::from_vec(values, (out, inner), device)?
            }
            shape => Tensor::zeros(shape, DType::F32, device)?,
        };
        params.insert(name, tensor);
    }
    Ok(())
}

/// What stands for the whitening until tokens are measured: the map that leaves them as they are.
///
/// # Errors
/// When the host is out of memory.
pub(super) fn unmeasured_whitening(width: usize, params: &mut Params) -> Result<()> {
    let device = &candle_core::Device::Cpu;
    params.insert(Layer::Whitening.weight(), Tensor::eye(width, DType::F32, device)?);
    params.insert(Layer::Whitening.bias(), Tensor::zeros(width, DType::F32, device)?);
    Ok(())
}

fn gated([v, u, w]: [Layer; 3], params: &Params) -> Result<GatedPool> {
    let linear = |layer: Layer| params.linear(layer.weight());
    Ok(GatedPool { v: linear(v)?, u: linear(u)?, w: linear(w)? })
}

/// The pooling that joins the tiles of an image; all that have nothing to learn, side by side, where it is still to be
/// chosen.
///
/// # Errors
/// When a parameter of the pooling is absent.
pub(super) fn of_tiles(pool: TilePool, params: &Params) -> Result<Arc<dyn TokenPool>> {
    let Some(pool) = Pool::of_tiles(pool) else {
        let pools = TILE_POOLS.into_iter().map(|pool| of_tiles(pool, params));
        return Ok(Arc::new(SideBySide(pools.collect::<Result<_>>()?)));
    };
    pool.plain().map_or_else(|| Ok(Arc::new(gated(OF_TILES, params)?) as Arc<dyn TokenPool>), Ok)
}

/// The pooling layer of a backbone.
#[derive(Debug, Clone)]
pub struct Pooling {
    pub(super) pool: Pool,
    kind: PoolLayer,
    /// Tokens before the patches.
    pub(super) prefix: usize,
}

#[derive(Debug, Clone)]
enum PoolLayer {
    Cls,
    ClsAvg,
    /// The mean of that many of the first tokens.
    Distilled(usize),
    /// The attention pooling, and how many of the first tokens it leaves out.
    Attention(Box<AttentionPool>, usize),
    /// A sum over the patches.
    Patches(Arc<dyn TokenPool>),
}

impl Pooling {
    /// Builds the layer over `params`.
    ///
    /// # Errors
    /// When a parameter of the pooling is absent.
    pub fn new(spec: &VitSpec, pool: Pool, params: &Params) -> Result<Self> {
        let kind = match pool {
            Pool::Cls => PoolLayer::Cls,
            Pool::ClsAvg => PoolLayer::ClsAvg,
            Pool::Distilled => PoolLayer::Distilled(spec.prefix_tokens()),
            Pool::Attention => {
                let Some(query) = spec.pool_query() else {
                    candle_core::bail!("the backbone has no attention pooling")
                };
                let skipped = if query.reads_prefix { 0 } else { spec.prefix_tokens() };
                PoolLayer::Attention(Box::new(attention_pool(spec, query, params)?), skipped)
            }
            Pool::Gated => PoolLayer::Patches(Arc::new(gated(OF_PATCHES, params)?)),
            Pool::Mahalanobis => {
                let whitening = params.linear(Layer::Whitening.weight())?;
                PoolLayer::Patches(Arc::new(Mahalanobis { whitening }))
            }
            Pool::Avg | Pool::Max | Pool::Lse | Pool::Topk | Pool::Gem | Pool::Stats => {
                let Some(plain) = pool.plain() else { candle_core::bail!("{pool:?} is not a sum over patches") };
                PoolLayer::Patches(plain)
            }
        };
        Ok(Self { pool, kind, prefix: spec.prefix_tokens() })
    }

    /// How many of the first tokens it reads; none when it reads them all.
    pub(super) fn reads(&self) -> Option<usize> {
        match self.kind {
            PoolLayer::Cls => Some(1),
            PoolLayer::Distilled(count) => Some(count),
            PoolLayer::ClsAvg | PoolLayer::Attention(..) | PoolLayer::Patches(_) => None,
        }
    }

    /// tokens (B, T, d) to features (B, [`Pool::features`]).
    ///
    /// # Errors
    /// When there are fewer tokens than the architecture has.
    pub fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.kind {
            PoolLayer::Cls => token(tokens, 0),
            PoolLayer::ClsAvg => Tensor::cat(&[token(tokens, 0)?, patch_mean(tokens, self.prefix)?], 1),
            PoolLayer::Distilled(count) => tokens.narrow(1, 0, *count)?.mean(1),
            PoolLayer::Attention(attention, skipped) => attention.forward(&patches(tokens, *skipped)?),
            PoolLayer::Patches(pool) => pool.forward(&self.wide_patches(tokens)?),
        }
    }

    /// Whether the features are a sum over the patches.
    pub(super) fn is_over_patches(&self) -> bool {
        matches!(self.kind, PoolLayer::Patches(_))
    }

    /// What each patch gives to each feature: tokens (B, T, d) to (B, N, w), whose sum over the patches is
    /// [`Pooling::forward`].
    ///
    /// # Errors
    /// When there are fewer tokens than the architecture has, and where features are not a sum over patches.
    pub fn contributions(&self, tokens: &Tensor) -> Result<Tensor> {
        match &self.kind {
            PoolLayer::Patches(pool) => pool.contributions(&self.wide_patches(tokens)?),
            PoolLayer::Cls | PoolLayer::ClsAvg | PoolLayer::Distilled(_) | PoolLayer::Attention(..) => {
                candle_core::bail!("{:?} is not a sum over patches", self.pool)
            }
        }
    }

    /// Where it looks: tokens (B, T, d) after the final norm to the share of each in the features (B, T). The heads of an
    /// attention pooling count alike.
    ///
    /// # Errors
    /// When there are fewer tokens than the architecture has.
    pub(super) fn shares(&self, tokens: &Tensor) -> Result<Tensor> {
        let (looks, skipped) = match &self.kind {
            PoolLayer::Attention(attention, skipped) => {
                (attention.weights(&patches(tokens, *skipped)?)?.mean(1)?, *skipped)
            }
            PoolLayer::Patches(pool) if self.pool.is_added() => {
                let given = pool.contributions(&self.wide_patches(tokens)?)?.abs()?;
                let shares = given.broadcast_div(&(given.sum_keepdim(1)? + f64::from(f32::MIN_POSITIVE))?)?;
                (shares.mean(2)?.to_dtype(tokens.dtype())?, self.prefix)
            }
            _ => return fixed_shares(self.pool, self.prefix, tokens),
        };
        looks.pad_with_zeros(1, skipped, 0) // (B, N) to (B, T)
    }

    /// The patches among tokens (B, T, d), in f32 if they are in half: cubes and exponentials leave its range.
    fn wide_patches(&self, tokens: &Tensor) -> Result<Tensor> {
        let patches = patches(tokens, self.prefix)?;
        let is_half = matches!(tokens.dtype(), DType::F16 | DType::BF16);
        if is_half { patches.to_dtype(DType::F32) } else { Ok(patches) }
    }
}

/// The share of each token (B, T) in what a mean of some of the `tokens` (B, T, d) is: of the patches, but for poolings that
/// read the class token.
pub(super) fn fixed_shares(pool: Pool, prefix: usize, tokens: &Tensor) -> Result<Tensor> {
    let (batch, count, _) = tokens.dims3()?;
    let patch = 1.0 / count.saturating_sub(prefix).max(1) as f32;
    let share = |token: usize| match pool {
        Pool::Cls => f32::from(token == 0),
        Pool::Distilled => f32::from(token < prefix) / prefix as f32,
        Pool::ClsAvg => 0.5 * (f32::from(token == 0) + f32::from(token >= prefix) * patch),
        _ => f32::from(token >= prefix) * patch,
    };
    let row: Vec<f32> = (0..count).map(share).collect();
    Tensor::from_vec(row, (1, count), tokens.device())?.to_dtype(tokens.dtype())?.broadcast_as((batch, count))
}

/// Tokens (B, T, d) to the one at `index` (B, d); the class token is the first.
pub(super) fn token(tokens: &Tensor, index: usize) -> Result<Tensor> {
    tokens.narrow(1, index, 1)?.squeeze(1)?.contiguous()
}

/// Tokens (B, T, d) to the mean (B, d) of those after the first `prefix`.
pub(super) fn patch_mean(tokens: &Tensor, prefix: usize) -> Result<Tensor> {
    patches(tokens, prefix)?.mean(1)
}

fn patches(tokens: &Tensor, prefix: usize) -> Result<Tensor> {
    tokens.narrow(1, prefix, tokens.dim(1)? - prefix)
}

fn attention_pool(spec: &VitSpec, query: PoolQuery, params: &Params) -> Result<AttentionPool> {
    let linear = |layer: Layer| params.linear(layer.weight());
    Ok(AttentionPool {
        latent: params.tensor(Layer::PoolLatent.whole())?,
        q: linear(Layer::PoolQ)?,
        kv: linear(Layer::PoolKv)?,
        proj: linear(Layer::PoolProj)?,
        norm: norm(params, Layer::PoolNorm.weight(), spec.norms)?,
        fc1: linear(Layer::PoolFc1)?,
        activation: spec.mlp.activation().unwrap_or(Activation::Gelu),
        fc2: linear(Layer::PoolFc2)?,
        heads: query.heads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn sums_over_patches_run_in_f32() {
        // ε³ of the generalised mean is 0 in f16, and with it a whole column of negative values.
        let gem = Pooling { pool: Pool::Gem, kind: PoolLayer::Patches(Arc::new(crate::nn::pool::Gem)), prefix: 1 };
        let tokens = Tensor::new(&[[[9f32, 9.0], [-1.0, 2.0], [-3.0, 0.5]]], &Device::Cpu).unwrap();
        let half = tokens.to_dtype(DType::F16).unwrap();
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let given = |tokens| values(gem.contributions(tokens).unwrap());
        assert_eq!(values(gem.forward(&half).unwrap()), values(gem.forward(&tokens).unwrap()));
        assert_eq!(given(&half), given(&tokens));
        assert!(given(&half).iter().all(|value| value.is_finite()));
        let shares = gem.shares(&half).unwrap();
        assert_eq!(shares.dtype(), DType::F16, "the type of what the shares are multiplied by");
        assert!(values(shares.to_dtype(DType::F32).unwrap()).iter().all(|value| value.is_finite()));
    }
}
