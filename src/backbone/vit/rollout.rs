//! Attention roll-out (Abnar and Zuidema 2020): from which patches the features of an image come, as far as attention
//! tells.
//!
//! A token after a block is taken to be half itself, by the residual path, and half what the mean head looked at. The
//! shares of the patches in a token are carried through all blocks by these mixtures; the pooling mixes the tokens it
//! reads. Values and MLPs are left out, so this says where the model looked and not what it made of it.

use super::Vit;
use crate::backbone::pool::fixed_shares;
use crate::backbone::readout::Readout;
use crate::backbone::spec::Pool;
use crate::config::FeatureChoice;
use crate::nn::Mode;
use candle_core::{DType, Result, Tensor};

/// Features, and from where they come.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// The share of each patch in the features (B, N), in rows from the upper left. What comes from the class token,
    /// registers and learnt prompts themselves is left out, so that an image's shares sum to less than one.
    pub shares: Tensor,
    /// The features (B, d).
    pub features: Tensor,
}

impl Vit {
    /// pixels (B, 3, S, S) to the features of `readout` and where they come from.
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn rollout(&self, readout: Readout, pixels: &Tensor) -> Result<Rollout> {
        let mut x = self.embed(pixels)?;
        let (batch, tokens, _) = x.dims3()?;
        // Row by row, what each token consists of: itself at first.
        let mut shares = Tensor::eye(tokens, x.dtype(), x.device())?.broadcast_as((batch, tokens, tokens))?;
        let (mut readings, mut ends) = (Vec::with_capacity(readout.blocks), Vec::with_capacity(readout.blocks));
        for (index, block) in self.blocks.iter().enumerate() {
            (x, shares) = (self.prompts.join(index, &x)?, self.prompts.join_zeros(index, &shares)?);
            let seen = block.attention_weights(&x)?.matmul(&shares.contiguous()?)?;
            shares = ((seen + &shares)? * 0.5)?;
            x = block.forward(&x, x.dim(1)?, Mode::Eval)?;
            (x, shares) = (self.prompts.leave(index, &x)?, self.prompts.leave(index, &shares)?);
            if index + readout.blocks >= self.blocks.len() {
                let end = self.normed(&self.prompts.read(index, &x)?)?;
                readings.push(self.reading(readout, &end, &self.prompts.read(index, &shares)?)?);
                ends.push(end);
            }
        }
        let read = Tensor::stack(&readings, 0)?.mean(0)?; // (B, T)
        let prefix = self.prefix_tokens();
        let features = match readout.features {
            FeatureChoice::Pool => self.pooled_by(&self.pooling, &x)?,
            _ => self.gathered(readout.features, &ends)?,
        };
        Ok(Rollout { shares: read.narrow(1, prefix, tokens - prefix)?.to_dtype(DType::F32)?, features })
    }

    /// What a readout takes of tokens x (B, T, d) after the final norm: of their shares (B, T, T₀) to those of the features
    /// (B, T₀).
    fn reading(&self, readout: Readout, x: &Tensor, shares: &Tensor) -> Result<Tensor> {
        let fixed = |pool| fixed_shares(pool, self.prefix_tokens(), x);
        let weights = match readout.features {
            FeatureChoice::Pool => self.pooling.shares(x)?,
            FeatureChoice::Cls => fixed(Pool::Cls)?,
            FeatureChoice::Avg => fixed(Pool::Avg)?,
            FeatureChoice::Both => fixed(Pool::ClsAvg)?,
        };
        weights.unsqueeze(1)?.contiguous()?.matmul(&shares.contiguous()?)?.squeeze(1)
    }
}
