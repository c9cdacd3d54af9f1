//! A text tower with its tokenizer: from texts to embeddings.

use super::tokenizer::Tokenizer;
use crate::backbone::{TextEncoder, TextSpec, TextTower};
use crate::error::Result;
use crate::nn::l2_normalize;
use crate::nn::workers::Workers;
use candle_core::{Device, Tensor};
use std::path::Path;

/// Texts that a worker embeds at a time.
const BATCH: usize = 32;

/// What turns texts into embeddings, and compares these with those of images.
pub struct TextModel {
    /// The tokens of a text.
    pub tokenizer: Tokenizer,
    /// Tokens to embeddings, in the space of the images.
    pub encoder: TextEncoder,
    /// The architecture of the tower.
    pub spec: TextSpec,
    /// The logarithm of the factor on the cosine of text and image.
    pub logit_scale: f32,
    /// Added to the scaled cosine (`SigLIP`).
    pub logit_bias: Option<f32>,
    device: Device,
}

impl TextModel {
    /// Loads the text side of the model in `folder` onto `device`.
    ///
    /// # Errors
    /// Weights errors of the tower and of the tokenizer.
    pub fn load(folder: &str, device: &Device) -> Result<Self> {
        let mut tower = TextTower::load(folder)?;
        let tokenizer = Tokenizer::load(Path::new(folder), &tower)?;
        let params = std::mem::take(&mut tower.params).to_device(device)?;
        Ok(Self {
            tokenizer,
            encoder: TextEncoder::new(&tower.spec, &params)?,
            spec: tower.spec,
            logit_scale: tower.logit_scale,
            logit_bias: tower.logit_bias,
            device: device.clone(),
        })
    }

    /// The embeddings (n, E) of texts, of unit length.
    ///
    /// # Errors
    /// A usage error that names a text that is longer than the context.
    pub fn embed(&self, texts: &[String], workers: &Workers) -> Result<Tensor> {
        let ids = self.tokenizer.batch(texts, &self.device)?;
        let starts = (0..texts.len()).step_by(BATCH).collect();
        let parts = workers.map(starts, |start| {
            let part = ids.narrow(0, start, BATCH.min(texts.len() - start))?;
            l2_normalize(&self.encoder.encode(&part)?)
        })?;
        Ok(Tensor::cat(&parts, 0)?)
    }
}
