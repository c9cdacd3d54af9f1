//! The text towers of CLIP and `SigLIP` (Radford et al. 2021; Zhai et al. 2023): loaded as strictly as backbones.
//!
//! Canonical names: `token_embed` (V, d), `pos_embed` (1, T, d), `blocks.N.*` as in image towers, `norm`, and
//! `projection` (E, d) to the space that texts and images share.

use super::block::{Block, norm};
use super::load::{differences, read_parameter, tower_problem};
use super::name::{Layer, ParamName};
use super::params::Params;
use super::source::Source;
use super::text_formats::{TextFormat, TextPreparation};
use super::text_spec::{TextPool, TextSpec};
use crate::error::{Result, WeightsError};
use crate::nn::{LayerNorm, Linear, Mode};
use candle_core::{DType, Tensor};

/// A loaded text tower with what compares its embeddings with those of images.
#[derive(Debug, Clone)]
pub struct TextTower {
    /// The architecture.
    pub spec: TextSpec,
    /// What comes before and after the tokenizer.
    pub preparation: TextPreparation,
    /// Every parameter by canonical name, in f32.
    pub params: Params,
    /// The logarithm of the factor on the cosine of text and image.
    pub logit_scale: f32,
    /// Added to the scaled cosine (`SigLIP`).
    pub logit_bias: Option<f32>,
}

impl TextTower {
    /// Whether there is one in a folder, or in what else a backbone can be given by.
    ///
    /// # Errors
    /// Weights errors of files that cannot be read.
    pub fn is_in(backbone: &str) -> Result<bool> {
        Ok(TextFormat::of(&Source::open(backbone)?.description.config).is_some())
    }

    /// Loads the text tower of a folder that holds a whole model, or a text tower alone.
    ///
    /// # Errors
    /// Weights errors list all missing, unexpected and wrongly shaped tensors; image backbones have no text tower.
    pub fn load(backbone: &str) -> Result<Self> {
        let source = Source::open(backbone)?;
        let tensors = source.tensors()?;
        let header = tensors.header();
        let Some(format) = TextFormat::of(&source.description.config) else {
            return Err(WeightsError::Invalid {
                path: source.path,
                reason: match TextFormat::unsupported(&source.description.config) {
                    Some(kind) => format!("its text tower is {kind}, which is not supported"),
                    None => "has no text tower, which comparing images with texts needs".into(),
                },
                hint: Some(
                    "give a CLIP or SigLIP model as transformers or open_clip saves it, such as \
                     openai/clip-vit-base-patch32"
                        .into(),
                ),
            }
            .into());
        };
        let invalid = |reason: String| WeightsError::invalid(&source.path, format!("{}: {reason}", format.name()));
        let spec = format.spec(&source.description.config, &header).map_err(invalid)?;
        if let Some(problem) = tower_problem(&spec.block(), spec.depth) {
            return Err(invalid(problem).into());
        }
        let preparation = format.preparation(&source.description.config).map_err(invalid)?;
        let wanted = spec.shapes().into_iter().map(|(name, shape)| (format.mapping(name, &header), shape));
        let problems = differences(wanted, &header, |name| format.ignores(name));
        if !problems.is_empty() {
            let family = format!("{} text tower", format.name());
            return Err(WeightsError::Mismatch { path: source.path, family, problems }.into());
        }
        let read = |(name, shape): (ParamName, Vec<usize>)| {
            Ok((name, read_parameter(&format.mapping(name, &header), &shape, &tensors, &source.path)?))
        };
        let params = spec.shapes().into_iter().map(read).collect::<Result<_>>()?;
        let scalar = |name: &str| -> Result<Option<f32>> {
            if !header.contains_key(name) {
                return Ok(None);
            }
            let value = tensors.read(name).map_err(invalid)?;
            Ok(value.flatten_all()?.to_vec1::<f32>()?.first().copied())
        };
        let logit_scale = scalar("logit_scale")?.unwrap_or(INITIAL_LOGIT_SCALE);
        let logit_bias = scalar("logit_bias")?;
        Ok(Self { spec, preparation, params, logit_scale, logit_bias })
    }
}

/// ln(1 / 0.07), where CLIP's training starts: for text towers saved alone.
const INITIAL_LOGIT_SCALE: f32 = 2.659_26;

/// A text tower ready to run.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    tokens: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    causal: bool,
    pool: TextPool,
    projection: Option<Linear>,
}

impl TextEncoder {
    /// Builds the layers over `params`.
    ///
    /// # Errors
    /// When a parameter that `spec` asks for is absent.
    pub fn new(spec: &TextSpec, params: &Params) -> candle_core::Result<Self> {
        let block = spec.block();
        let projection = Layer::Projection.weight();
        Ok(Self {
            tokens: params.tensor(Layer::TokenEmbed.whole())?,
            positions: params.tensor(Layer::PosEmbed.whole())?,
            blocks: (0..spec.depth)
                .map(|index| Block::new(&block, params, index, 0.0))
                .collect::<candle_core::Result<_>>()?,
            norm: norm(params, Layer::Norm.weight(), spec.block().norms)?,
            causal: spec.causal,
            pool: spec.pool,
            projection: (spec.projection > 0).then(|| params.linear(projection)).transpose()?,
        })
    }

    /// Token numbers (B, T) as u32, padded, to embeddings (B, E), not yet of unit length.
    ///
    /// # Errors
    /// When a text is longer than the context, or a number is outside the vocabulary.
    pub fn encode(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let ends = self.ends(ids)?;
        let length = self.needed(&ends, ids.dim(1)?);
        self.encode_embedded(&self.embed(&ids.narrow(1, 0, length)?)?, &ends)
    }

    /// How many of `length` tokens are needed to read those at `ends`: what a causal tower does behind them changes
    /// nothing, and most of a context is padding.
    pub fn needed(&self, ends: &[usize], length: usize) -> usize {
        if self.causal { ends.iter().max().map_or(0, |last| last + 1) } else { length }
    }

    /// Token numbers (B, T) as u32 to their embeddings (B, T, d), without positions.
    ///
    /// # Errors
    /// When a number is outside the vocabulary.
    pub fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        self.tokens.index_select(&ids.flatten_all()?, 0)?.reshape((batch, length, ()))
    }

    /// Which token of each text (B, T) stands for it.
    ///
    /// # Errors
    /// When `ids` are not rows of numbers.
    pub fn ends(&self, ids: &Tensor) -> candle_core::Result<Vec<usize>> {
        let rows = ids.to_dtype(DType::U32)?.to_vec2::<u32>()?;
        let end = |ids: &Vec<u32>| match self.pool {
            TextPool::First => 0,
            TextPool::Last => ids.len().saturating_sub(1),
            // The first where several are equal, as PyTorch's argmax.
            TextPool::Largest => position(ids, ids.iter().copied().max().unwrap_or(0)),
            TextPool::EndOfText(id) => position(ids, id),
        };
        Ok(rows.iter().map(end).collect())
    }

    /// Embedded tokens (B, T, d), without positions, to embeddings (B, E) of the texts that the tokens `ends` stand for:
    /// where learnt vectors take the place of words.
    ///
    /// # Errors
    /// When a text is longer than the context.
    pub fn encode_embedded(&self, tokens: &Tensor, ends: &[usize]) -> candle_core::Result<Tensor> {
        let mut x = tokens.broadcast_add(&self.positions.narrow(1, 0, tokens.dim(1)?)?)?;
        for block in &self.blocks {
            x = block.forward(&x, x.dim(1)?, Mode::Eval)?;
        }
        let x = self.norm.forward(&x)?;
        let pooled = ends.iter().enumerate().map(|(text, &end)| x.get(text)?.get(end));
        let pooled = Tensor::stack(&pooled.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        match &self.projection {
            Some(projection) => projection.forward(&pooled),
            None => Ok(pooled),
        }
    }
}

/// The first position of `id`; 0 when it is absent.
fn position(ids: &[u32], id: u32) -> usize {
    ids.iter().position(|&other| other == id).unwrap_or(0)
}
