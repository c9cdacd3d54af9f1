//! The classes in words, embedded beside the images: what zero-shot compares with, and what a head starts from.

use super::features::FeatureSet;
use super::session::Session;
use crate::backbone::{Layer, Params};
use crate::config::{FoundOrGiven, PoolChoice, Settings, TilePool};
use crate::data::Split;
use crate::error::{Error, Result, WeightsError};
use crate::model::CosineHead;
use crate::probe::LinearHead;
use crate::report::Console;
use crate::text::{PromptEmbeddings, Prompts, TextModel};
use crate::train::regulariser::{Regulariser, multipliers};
use candle_core::{D, Tensor};

/// The prompts of the classes, with a warning for classes without words; to be called before the weights are loaded.
///
/// # Errors
/// A usage error for unknown or nameless classes, and when the pooling is not the one that was trained beside texts.
pub fn prompts(settings: &Settings, classes: &[String], console: &Console) -> Result<Prompts> {
    // The projection to the texts' space was trained on the features of one pooling.
    if settings.model.pool != PoolChoice::Backbone {
        let message = "model.pool gives other features than those that were trained beside texts";
        return Err(Error::usage_hint(message, "set model.pool = \"backbone\" to compare with texts"));
    }
    let widens = matches!(settings.model.tile_pool, TilePool::Stats | TilePool::Attention | TilePool::Auto);
    if settings.preprocess.tiles.is_some() && widens {
        return Err(Error::usage_hint(
            format!(
                "model.tile_pool = \"{}\" gives other features than those that were trained beside texts",
                settings.model.tile_pool
            ),
            "set model.tile_pool = \"avg\" to compare with texts",
        ));
    }
    let prompts = Prompts::new(&settings.prompts, classes)?;
    let wordless = prompts.wordless();
    if !wordless.is_empty() {
        console.warn(format!(
            "no word says what these classes show: {}; name them in [prompts.classes]",
            wordless.join(", ")
        ));
    }
    Ok(prompts)
}

/// Embedded prompts, and how the model compares them with images.
pub struct ClassTexts {
    /// What was embedded.
    pub prompts: Prompts,
    /// Its embeddings.
    pub embeddings: PromptEmbeddings,
    logit_scale: f32,
    logit_bias: f32,
}

impl ClassTexts {
    /// Embeds the prompts with the text tower beside the session's backbone.
    ///
    /// # Errors
    /// A weights error when there is no text tower or tokenizer, or when they are another model's; a usage error that
    /// names a prompt that is too long.
    pub fn new(session: &Session, prompts: Prompts) -> Result<Self> {
        let model = TextModel::load(&session.location, &session.device)?;
        let embeddings = PromptEmbeddings::new(&prompts, &model, &session.workers)?;
        check_widths(session, embeddings.width()?)?;
        let (logit_scale, logit_bias) = (model.logit_scale, model.logit_bias.unwrap_or(0.0));
        Ok(Self { prompts, embeddings, logit_scale, logit_bias })
    }

    /// The parameters of a head with these directions (C, E).
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn head(&self, directions: &Tensor) -> Result<Params> {
        Ok(CosineHead::params(directions, self.logit_scale, self.logit_bias)?)
    }

    /// Those of the zero-shot classifier: all names and templates of a class together.
    ///
    /// # Errors
    /// As [`ClassTexts::head`].
    pub fn zero_shot(&self) -> Result<Params> {
        self.head(&self.embeddings.ensemble()?)
    }

    /// The zero-shot classifier as a linear head on embeddings of unit length.
    ///
    /// # Errors
    /// When the device fails.
    pub fn linear(&self) -> Result<LinearHead> {
        let directions = (self.embeddings.ensemble()? * f64::from(self.logit_scale.exp()))?;
        let bias = vec![self.logit_bias; directions.dim(0)?];
        Ok(LinearHead { weight: directions.flatten_all()?.to_vec1()?, bias })
    }

    /// The regulariser of a head that starts as the zero-shot classifier, on a model with `params`; `features` are computed
    /// when the penalty depends on how well the texts do on the training images.
    ///
    /// # Errors
    /// Those of `features`.
    pub fn regulariser(
        &self,
        pull: Option<FoundOrGiven>,
        params: &Params,
        features: impl FnOnce() -> Result<FeatureSet>,
    ) -> Result<Regulariser> {
        let directions = self.embeddings.ensemble()?;
        let classes = directions.dim(0)?;
        let multipliers = match pull {
            None => Vec::new(),
            Some(FoundOrGiven::Given(strength)) => vec![strength as f32; classes],
            Some(FoundOrGiven::Found) => {
                let train = embedded(&features()?, params)?.of(&[Split::Train]);
                multipliers(&self.linear()?.logits(train.matrix())?, &train.labels, classes)
            }
        };
        Ok(Regulariser::new(directions, self.logit_scale, &multipliers)?)
    }
}

/// The two sides of one model agree, those put together by hand may not.
///
/// # Errors
/// A weights error when texts have another width than images.
pub fn check_widths(session: &Session, texts: usize) -> Result<()> {
    let images = session.backbone.embedding();
    if images == texts {
        return Ok(());
    }
    let reason = format!("embeds images in {images} values and texts in {texts}, which cannot be compared");
    Err(WeightsError::invalid(&session.location, reason).into())
}

/// The pooled features of all images as the embeddings of unit length that a cosine head of these parameters compares.
///
/// # Errors
/// When the device fails.
pub fn embedded(features: &FeatureSet, params: &Params) -> Result<FeatureSet> {
    let head = CosineHead::new(params)?;
    features.mapped(|rows| {
        let device = params.tensor(Layer::Head.weight())?.device().clone();
        let rows = Tensor::from_slice(rows.values(), (rows.rows(), rows.cols()), &device)?;
        let embeddings = head.embed(&rows)?.detach();
        let width = embeddings.dim(D::Minus1)?;
        Ok((embeddings.flatten_all()?.to_vec1()?, width))
    })
}
