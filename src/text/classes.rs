//! From the embeddings of prompts to one direction per class: the ensemble of Radford et al. (2021), section 3.1.4.

use super::model::TextModel;
use super::prompts::Prompts;
use crate::error::Result;
use crate::nn::l2_normalize;
use crate::nn::workers::Workers;
use candle_core::Tensor;

/// The embedding of every prompt, of unit length.
pub struct PromptEmbeddings {
    /// For each class (names, templates, E).
    classes: Vec<Tensor>,
}

impl PromptEmbeddings {
    /// Embeds all prompts.
    ///
    /// # Errors
    /// A usage error that names a prompt that is longer than the context.
    pub fn new(prompts: &Prompts, model: &TextModel, workers: &Workers) -> Result<Self> {
        let texts: Vec<String> = (0..prompts.classes.len()).flat_map(|class| prompts.of(class)).collect();
        let rows = model.embed(&texts, workers)?;
        let (width, templates) = (rows.dim(1)?, prompts.templates.len());
        let mut start = 0;
        let mut classes = Vec::with_capacity(prompts.classes.len());
        for class in &prompts.classes {
            let count = class.names.len() * templates;
            classes.push(rows.narrow(0, start, count)?.reshape((class.names.len(), templates, width))?);
            start += count;
        }
        Ok(Self { classes })
    }

    /// Values of an embedding.
    ///
    /// # Errors
    /// When there are no classes.
    pub fn width(&self) -> Result<usize> {
        Ok(self.classes.first().map_or(Ok(0), |class| class.dim(2))?)
    }

    /// One direction per class (C, E): the mean over its names and templates, of unit length again.
    ///
    /// Each class is averaged alone. A mean over all classes would be one direction for all of them, and every image as
    /// near to one class as to another.
    ///
    /// # Errors
    /// When the device fails.
    pub fn ensemble(&self) -> Result<Tensor> {
        Self::directions(self.classes.iter().cloned().map(Ok))
    }

    /// The same for one template alone, by its number.
    ///
    /// # Errors
    /// When there are fewer templates.
    pub fn of_template(&self, template: usize) -> Result<Tensor> {
        Self::directions(self.classes.iter().map(|class| class.narrow(1, template, 1)))
    }

    fn directions(classes: impl Iterator<Item = candle_core::Result<Tensor>>) -> Result<Tensor> {
        let mean = |class: candle_core::Result<Tensor>| class?.flatten(0, 1)?.mean(0);
        let means = classes.map(mean).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(l2_normalize(&Tensor::stack(&means, 0)?)?)
    }
}
