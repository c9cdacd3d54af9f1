//! The keys of `strategy.kind = "prompt"`.

use super::Resolver;
use crate::config::prompt_tuning::{
    ContextSettings, ContextStart, NamePosition, PromptModality, PromptTuning, VisualPromptSettings,
};
use crate::config::raw_strategy::RawStrategy;

/// The length that `CoOp` trains by default.
const CONTEXT: usize = 16;
/// A middle of the 5 to 50 that VPT finds best, by the data.
const TOKENS: usize = 10;

const MODALITY: &str = "strategy.modality";
const CONTEXT_KEY: &str = "strategy.context";
const INIT: &str = "strategy.init";

/// The keys of prompts before the text tower that are given.
fn text_keys(raw: &RawStrategy) -> Vec<&'static str> {
    given(&[
        (CONTEXT_KEY, raw.context.is_some()),
        (INIT, raw.init.is_some()),
        ("strategy.shared", raw.shared.is_some()),
        ("strategy.position", raw.position.is_some()),
    ])
}

/// The keys of prompts in the image tower that are given.
fn visual_keys(raw: &RawStrategy) -> Vec<&'static str> {
    given(&[("strategy.tokens", raw.tokens.is_some()), ("strategy.deep", raw.deep.is_some())])
}

fn given(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect()
}

impl Resolver<'_> {
    pub(super) fn prompt_tuning(&mut self, raw: &RawStrategy) -> PromptTuning {
        let (context, init) = self.either((CONTEXT_KEY, raw.context), (INIT, raw.init.clone()));
        let start = match (context, init) {
            (_, Some(words)) => ContextStart::Words(words),
            (count, None) => ContextStart::Random(count.unwrap_or(CONTEXT)),
        };
        PromptTuning {
            modality: self.modality(raw),
            context: ContextSettings {
                start,
                shared: raw.shared.unwrap_or(true),
                position: raw.position.unwrap_or(NamePosition::End),
            },
            visual: VisualPromptSettings { tokens: raw.tokens.unwrap_or(TOKENS), deep: raw.deep.unwrap_or(true) },
        }
    }

    /// Refuses the keys of prompts beside another kind, unless an override chose that.
    pub(super) fn without_prompts(&mut self, raw: &RawStrategy) {
        let modality = given(&[(MODALITY, raw.modality.is_some())]);
        for key in [modality, text_keys(raw), visual_keys(raw)].concat() {
            self.belongs_to_value(key, "strategy.kind", "prompt");
        }
    }

    /// What is asked for, or else what the other keys are about.
    fn modality(&mut self, raw: &RawStrategy) -> PromptModality {
        let (text, visual) = (text_keys(raw), visual_keys(raw));
        let meant = match (raw.modality, text.first(), visual.first()) {
            (Some(modality), ..) => modality,
            (None, Some(text_key), Some(visual_key)) => {
                let message = format!("is about images, but {text_key} about text");
                let hint = "set strategy.modality = \"text\" or \"visual\" and leave the keys of the other out";
                self.conflict(visual_key, &text, message, hint);
                PromptModality::Auto
            }
            (None, Some(_), None) => PromptModality::Text,
            (None, None, Some(_)) => PromptModality::Visual,
            (None, None, None) => PromptModality::Auto,
        };
        let (foreign, owner) = match meant {
            PromptModality::Auto => return meant,
            PromptModality::Text => (visual, "visual"),
            PromptModality::Visual => (text, "text"),
        };
        for key in foreign {
            self.belongs_to_value(key, MODALITY, owner);
        }
        meant
    }

    /// Refuses a key that has a meaning for one value of another key only, unless an override chose another value.
    fn belongs_to_value(&mut self, key: &str, owner: &str, value: &str) {
        if !self.supersedes(owner, key) {
            let message = format!("belongs to {owner} = \"{value}\" only");
            self.conflict(key, &[owner], message, format!("leave it out, or set {owner} = \"{value}\""));
        }
    }
}
