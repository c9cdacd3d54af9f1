//! The transformer block that image and text towers share.

use super::lora::Lora;
use super::name::{Layer, ParamName, Part};
use super::params::Params;
use super::spec::{BlockSpec, NormSpec};
use crate::nn::{Activation, AdaptedLinear, Attention, LayerNorm, Mode, QkNorm, drop_path_factors, residual, swiglu};
use candle_core::{Result, Tensor};

/// The norm with that weight.
pub(super) fn norm(params: &Params, weight: ParamName, norms: NormSpec) -> Result<LayerNorm> {
    let factor = params.tensor(weight)?;
    if norms.rms {
        return Ok(LayerNorm::rms(factor, norms.eps));
    }
    Ok(LayerNorm::new(factor, params.tensor(weight.sibling(Part::Bias))?, norms.eps))
}

/// Attention and MLP, each a residual branch with a norm before it or at its end.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) norm1: LayerNorm,
    /// Whether both norms stand at the end of the branches.
    pub(super) behind: bool,
    pub(super) attention: Attention,
    /// Gamma of `LayerScale`, if there is one.
    pub(super) scale1: Option<Tensor>,
    pub(super) norm2: LayerNorm,
    pub(super) fc1: AdaptedLinear,
    /// None for a `SwiGLU`.
    pub(super) activation: Option<Activation>,
    /// Between the activation and the second product, if there is one.
    pub(super) mlp_norm: Option<LayerNorm>,
    pub(super) fc2: AdaptedLinear,
    pub(super) scale2: Option<Tensor>,
    pub(super) drop_path: f64,
    pub(super) index: u64,
}

impl Block {
    /// Builds block `index` over `params`.
    pub fn new(spec: &BlockSpec, params: &Params, index: usize, drop_path: f64) -> Result<Self> {
        let linear = |layer: Layer| params.linear(layer.weight().in_block(index));
        let norm = |layer: Layer| norm(params, layer.weight().in_block(index), spec.norms);
        let norm_if = |present: bool, layer: Layer| present.then(|| norm(layer)).transpose();
        let scale = |layer: Layer| params.get(layer.part(Part::Gamma).in_block(index));
        let qkv = linear(Layer::Qkv)?;
        let qkv = if spec.attention.key_bias { qkv } else { qkv.without_bias(spec.width..2 * spec.width) };
        let normed = || Result::Ok(QkNorm { q: norm(Layer::QNorm)?, k: norm(Layer::KNorm)? });
        let qk_norm = spec.attention.qk_norm.then(normed).transpose()?;
        Ok(Self {
            norm1: norm(Layer::Norm1)?,
            behind: spec.norms.behind,
            attention: Attention {
                qkv: qkv.into(),
                proj: linear(Layer::Proj)?.into(),
                heads: spec.attention.heads,
                causal: spec.causal,
                qk_norm,
                rotary: None,
                relative: None,
                proj_norm: norm_if(spec.attention.norm, Layer::ProjNorm)?,
            },
            scale1: scale(Layer::Scale1),
            norm2: norm(Layer::Norm2)?,
            fc1: linear(Layer::Fc1)?.into(),
            activation: spec.mlp.activation(),
            mlp_norm: norm_if(spec.mlp.norm, Layer::MlpNorm)?,
            fc2: linear(Layer::Fc2)?.into(),
            scale2: scale(Layer::Scale2),
            drop_path,
            index: index as u64,
        })
    }

    /// Adds the adapters that `lora` has for this block.
    pub fn adapt(&mut self, lora: &Lora, params: &Params) -> Result<()> {
        let adapter = |layer| lora.adapter(params, self.index as usize, layer);
        self.attention.adapt(adapter(Layer::Qkv)?, adapter(Layer::Proj)?);
        self.fc1.adapt(adapter(Layer::Fc1)?);
        self.fc2.adapt(adapter(Layer::Fc2)?);
        Ok(())
    }

    /// x (B, T, d) to the first `rows` of its tokens (B, rows, d), T for all. Only they are computed behind the keys and
    /// values. A frozen block runs on plain values, with a graph and without one, so that both agree to the bit.
    pub fn forward(&self, x: &Tensor, rows: usize, mode: Mode<'_>) -> Result<Tensor> {
        let plain = self.is_plain(x) && !self.trainable();
        if plain { self.forward_frozen(x, rows, mode) } else { self.compose(x, rows, mode) }
    }

    /// The same over a graph of operations.
    pub fn compose(&self, x: &Tensor, rows: usize, mode: Mode<'_>) -> Result<Tensor> {
        let attended = self.attention.forward(&self.before(&self.norm1, x, &self.attention.qkv)?, rows, mode)?;
        let attended = self.at_end(&self.norm1, attended)?;
        let x = &x.narrow(1, 0, rows)?;
        let x = self.residual(x, &attended, self.scale1.as_ref(), 0, mode)?;
        let normed = self.before(&self.norm2, &x, &self.fc1)?;
        let hidden = match self.activation {
            Some(activation) => activation.of_linear(&self.fc1, &normed, mode)?,
            None => swiglu(&self.fc1.forward(&normed, mode)?)?,
        };
        let hidden = LayerNorm::forward_if(self.mlp_norm.as_ref(), hidden)?;
        let branch = self.at_end(&self.norm2, self.fc2.forward(&hidden, mode)?)?;
        self.residual(&x, &branch, self.scale2.as_ref(), 1, mode)
    }

    /// What enters a branch by its first layer.
    fn before(&self, norm: &LayerNorm, x: &Tensor, layer: &AdaptedLinear) -> Result<Tensor> {
        if self.behind { Ok(x.clone()) } else { norm.forward_as(x, layer.linear().dtype()) }
    }

    /// What leaves a branch.
    fn at_end(&self, norm: &LayerNorm, branch: Tensor) -> Result<Tensor> {
        if self.behind { norm.forward(&branch) } else { Ok(branch) }
    }

    /// How much each token looks at each, as the mean over the heads: x (B, T, d) to (B, T, T).
    pub fn attention_weights(&self, x: &Tensor) -> Result<Tensor> {
        self.attention.mean_weights(&self.before(&self.norm1, x, &self.attention.qkv)?)
    }

    fn residual(
        &self,
        x: &Tensor,
        branch: &Tensor,
        scale: Option<&Tensor>,
        which: u64,
        mode: Mode<'_>,
    ) -> Result<Tensor> {
        let factors = drop_path_factors(x.dim(0)?, self.drop_path, 2 * self.index + which, mode)?;
        residual(x, branch, scale, factors)
    }
}
