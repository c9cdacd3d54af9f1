//! How every command on a config begins: its images are listed, its classes put into words where texts are compared with
//! images, its backbone loaded. What is wrong with one is said before the next, which takes longer.

use super::prompt;
use super::session::Session;
use super::texts::{self, ClassTexts};
use crate::config::Settings;
use crate::data::Dataset;
use crate::error::Result;
use crate::hub::Wanted;
use crate::metrics::good_classes;
use crate::report::Console;

/// A backbone, and images that are listed but not read yet.
pub struct Opened {
    /// The backbone.
    pub session: Session,
    /// The images.
    pub dataset: Dataset,
}

impl Opened {
    /// Opens what the settings name.
    ///
    /// # Errors
    /// Data errors, a usage error when a good class is not among the classes, and those of [`Session::open`].
    pub fn new(settings: Settings, console: &Console) -> Result<Self> {
        let dataset = list(&settings, console)?;
        Self::load(settings, dataset, false, console)
    }

    /// The same with the classes in words.
    ///
    /// # Errors
    /// Beside those of [`Opened::new`] those of [`texts::prompts`] and [`ClassTexts::new`].
    pub fn with_texts(settings: Settings, console: &Console) -> Result<(Self, ClassTexts)> {
        let dataset = list(&settings, console)?;
        let prompts = texts::prompts(&settings, &dataset.classes, console)?;
        let opened = Self::load(settings, dataset, true, console)?;
        // Before any image is read: a prompt that is too long is known by then.
        let texts = ClassTexts::new(&opened.session, prompts)?;
        Ok((opened, texts))
    }

    /// With the classes in words if these are `wanted`.
    ///
    /// # Errors
    /// As [`Opened::new`] or [`Opened::with_texts`].
    pub fn with_texts_if(wanted: bool, settings: Settings, console: &Console) -> Result<(Self, Option<ClassTexts>)> {
        if wanted {
            Self::with_texts(settings, console).map(|(opened, texts)| (opened, Some(texts)))
        } else {
            Self::new(settings, console).map(|opened| (opened, None))
        }
    }

    fn load(settings: Settings, dataset: Dataset, texts: bool, console: &Console) -> Result<Self> {
        let tokenizer = texts || settings.strategy.may_learn_words();
        let wanted = if tokenizer { Wanted::BackboneAndTokenizer } else { Wanted::Backbone };
        let mut session = Session::open(settings, wanted, console)?;
        prompt::settle(&mut session.settings, &session.location)?;
        Ok(Self { session, dataset })
    }
}

/// The images of the settings, whose good classes are among theirs.
fn list(settings: &Settings, console: &Console) -> Result<Dataset> {
    let dataset = Dataset::open(&settings.data)?;
    dataset.warnings.iter().for_each(|warning| console.warn(warning));
    dataset.notes.iter().for_each(|note| console.info(note));
    good_classes(&settings.inspection.good, &dataset.classes)?;
    Ok(dataset)
}
