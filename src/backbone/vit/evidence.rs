//! From which patches the features of an image come, exactly: where a pooling is a sum over the patches, each has its part
//! in each feature.

use super::Vit;
use crate::backbone::readout::Readout;
use crate::config::FeatureChoice;
use crate::nn::Mode;
use crate::nn::pool::{Mean, TokenPool};
use candle_core::{Result, Tensor};

impl Vit {
    /// pixels (B, 3, S, S) to what each patch gives to each of the features of `readout`, (B, N, w), in rows from the upper
    /// left; summed over the patches these are the features. None where they are not such a sum: with a class token, with
    /// `SigLIP`'s attention and its MLP, with a layer norm behind the pooling.
    ///
    /// # Errors
    /// When the pixels do not have the size of the position embeddings.
    pub fn contributions(&self, readout: Readout, pixels: &Tensor) -> Result<Option<Tensor>> {
        match readout.features {
            FeatureChoice::Pool => {
                let tokens = self.normed(&self.prefix(pixels, self.depth(), Mode::Eval)?)?;
                match &self.fc_norm {
                    Some(norm) if self.pooling.is_added() => self.pooling.contributions(&norm.forward(&tokens)?),
                    Some(_) => Ok(None),
                    None => self.pooling.contributions(&tokens),
                }
            }
            FeatureChoice::Avg => {
                let prefix = self.prefix_tokens();
                let of_patches =
                    |tokens: Tensor| Mean.contributions(&tokens.narrow(1, prefix, tokens.dim(1)? - prefix)?);
                let ends = self.last_tokens(pixels, readout.blocks, Mode::Eval)?;
                Tensor::cat(&ends.into_iter().map(of_patches).collect::<Result<Vec<_>>>()?, 2).map(Some)
            }
            FeatureChoice::Cls | FeatureChoice::Both => Ok(None),
        }
    }
}
