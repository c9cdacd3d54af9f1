//! Learnt prompts: what a training run means by them, and the text side that it needs.

use super::session::Session;
use super::texts;
use crate::backbone::TextTower;
use crate::config::{HeadInit, PromptModality, Settings, StrategySettings};
use crate::error::{Error, Result};
use crate::report::Console;
use crate::text::{ContextPrompts, TextModel};

/// Decides whether learnt prompts are words or tokens of the image tower, where the settings leave that to the model at
/// `location`.
///
/// # Errors
/// When the model's files cannot be read.
pub fn settle(settings: &mut Settings, location: &str) -> Result<()> {
    if let StrategySettings::Prompt(prompt) = &mut settings.strategy
        && prompt.modality == PromptModality::Auto
    {
        let text = TextTower::is_in(location)?;
        prompt.modality = if text { PromptModality::Text } else { PromptModality::Visual };
    }
    Ok(())
}

/// The prompts whose words are trained, with the text tower behind them; none for other strategies.
///
/// # Errors
/// Usage errors of settings that do not go with it and of prompts that are too long; weights errors of the text tower and
/// of its tokenizer.
pub fn context(session: &Session, classes: &[String], console: &Console) -> Result<Option<ContextPrompts>> {
    let settings = &session.settings;
    let StrategySettings::Prompt(prompt) = &settings.strategy else { return Ok(None) };
    if prompt.modality != PromptModality::Text {
        return Ok(None);
    }
    if settings.model.head_init != HeadInit::Random {
        let message = "model.head_init says what a head starts from, but learnt words make the head themselves";
        return Err(Error::usage_hint(message, "leave it out, or set strategy.modality = \"visual\""));
    }
    let prompts = texts::prompts(settings, classes, console)?;
    if prompts.classes.iter().any(|class| class.names.len() > 1) {
        console.info(
            "prompts   words are learnt around the first name of each class; other names and templates do not count",
        );
    }
    let model = TextModel::load(&session.location, &session.device)?;
    let prompts = ContextPrompts::new(model, &prompts, &prompt.context, settings.run.seed, &session.device)?;
    texts::check_widths(session, prompts.directions(prompts.start(), 0..1)?.dim(1)?)?;
    Ok(Some(prompts))
}
