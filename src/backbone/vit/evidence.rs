//! From which patches the features of an image come, exactly: where a pooling is a sum over the patches, each has its part
//! in each feature.

use super::Vit;
use crate::backbone::readout::Readout;
use crate::config::FeatureChoice;
use crate::nn::Mode;
use crate::nn::pool::{Mean, TokenPool};
use candle_core::{Result, Tensor};

impl Vit {
    /// Whether the features of `readout` are sums over the patches. They are not with a class token, with `SigLIP`'s
    /// attention and its MLP, with a layer norm behind the pooling.
    pub fn adds_up(&self, readout: Readout) -> bool {
        match readout.features {
            FeatureChoice::Pool => {
                self.pooling.is_over_patches() && (self.fc_norm.is_none() || self.pooling.pool.is_added())
            }
            FeatureChoice::Avg => true,
            FeatureChoice::Cls | FeatureChoice::Both => false,
        }
    }

    /// pixels (B, 3, S, S) to the tokens (B, T, d) that the features of `readout` are made from, behind each of its blocks.
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn summands(&self, readout: Readout, pixels: &Tensor) -> Result<Vec<Tensor>> {
        let ends = self.last_tokens(pixels, readout.blocks, Mode::Eval)?;
        match &self.fc_norm {
            Some(norm) if readout.features == FeatureChoice::Pool => ends.iter().map(|end| norm.forward(end)).collect(),
            _ => Ok(ends),
        }
    }

    /// The features (B, w) of `readout` from [`Vit::summands`].
    ///
    /// # Errors
    /// When there are fewer tokens than the architecture has.
    pub fn summed(&self, readout: Readout, ends: &[Tensor]) -> Result<Tensor> {
        match (readout.features, ends) {
            (FeatureChoice::Pool, [tokens]) => self.pooling.forward(tokens),
            (choice, ends) => self.gathered(choice, ends),
        }
    }

    /// What each patch gives to each of the features of a `readout` that [`Vit::adds_up`], from [`Vit::summands`]: (B, N, w),
    /// in rows from the upper left; summed over the patches these are the features.
    ///
    /// # Errors
    /// When there are fewer tokens than the architecture has.
    pub fn contributions(&self, readout: Readout, ends: &[Tensor]) -> Result<Tensor> {
        if let (FeatureChoice::Pool, [tokens]) = (readout.features, ends) {
            return self.pooling.contributions(tokens);
        }
        let prefix = self.prefix_tokens();
        let of_patches = |tokens: &Tensor| Mean.contributions(&tokens.narrow(1, prefix, tokens.dim(1)? - prefix)?);
        Tensor::cat(&ends.iter().map(of_patches).collect::<Result<Vec<_>>>()?, 2)
    }
}
