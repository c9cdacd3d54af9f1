//! The settings of learnt prompts: `strategy.kind = "prompt"`.

use crate::forms;
use crate::system::shown::counted;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// The keys of `strategy.kind = "prompt"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromptTuning {
    /// For `prompt`: what is trained. Default: what the keys below are about, or else `auto`.
    pub modality: PromptModality,
    /// Prompts of the text tower.
    #[serde(flatten)]
    pub context: ContextSettings,
    /// Prompts of the image tower.
    #[serde(flatten)]
    pub visual: VisualPromptSettings,
}

/// `strategy.modality`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptModality {
    /// `text` for a model with a text tower, else `visual`.
    #[default]
    Auto,
    /// Learnt words around the names of the classes.
    Text,
    /// Learnt tokens beside the patches of the image.
    Visual,
}

/// Learnt words around the names of the classes (`CoOp`, Zhou et al. 2022).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = of("text"))]
pub struct ContextSettings {
    /// What they start from.
    #[serde(flatten)]
    pub start: ContextStart,
    /// For prompts of text: one context for all classes, or one for each. Default: true.
    pub shared: bool,
    /// For prompts of text: where the name of the class is placed. Default: end.
    pub position: NamePosition,
}

/// `strategy.context` or `strategy.init`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = forms::side_by_side)]
pub enum ContextStart {
    /// For prompts of text: how many words are learnt, from random vectors; excludes `init`. Default: 16.
    #[serde(rename = "context")]
    Random(#[schemars(range(min = 1, max = 64))] usize),
    /// For prompts of text: the words that training starts from, such as "a photo of a"; excludes `context`.
    #[serde(rename = "init")]
    Words(#[schemars(length(min = 1))] String),
}

/// `strategy.position`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamePosition {
    /// Learnt words, then the name.
    End,
    /// The name between two halves of the learnt words.
    Middle,
    /// The name, then learnt words.
    Front,
}

/// Learnt tokens beside the patches (VPT, Jia et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = of("visual"))]
pub struct VisualPromptSettings {
    /// For visual prompts: how many tokens are learnt in a block. Default: 10.
    #[schemars(range(min = 1, max = 1000))]
    pub tokens: usize,
    /// For visual prompts: tokens for every block, or before the first alone. Default: true.
    // Otherwise those before the first block go through all of them.
    pub deep: bool,
}

/// The keys of prompts of one modality have a meaning for it alone, and as long as it is open.
fn of(modality: &str) -> impl FnMut(&mut Schema) {
    let only = json!([{ "key": "modality", "values": [modality, "auto"] }]);
    move |schema| {
        if let Some(Value::Object(keys)) = schema.ensure_object().get_mut("properties") {
            keys.values_mut().for_each(|key| key[forms::ONLY] = only.clone());
        }
    }
}

impl fmt::Display for PromptTuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.modality {
            PromptModality::Auto => write!(f, "prompt"),
            PromptModality::Text => write!(f, "prompt ({})", self.context),
            PromptModality::Visual => write!(f, "prompt ({})", self.visual),
        }
    }
}

impl fmt::Display for ContextSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            ContextStart::Random(count) => f.write_str(&counted(*count, "word"))?,
            ContextStart::Words(words) => write!(f, "words from {words:?}")?,
        }
        write!(f, "{}", if self.shared { "" } else { " of each class" })
    }
}

impl fmt::Display for VisualPromptSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            counted(self.tokens, "token"),
            if self.deep { "in every block" } else { "before the first block" }
        )
    }
}
