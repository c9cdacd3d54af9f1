//! The settings of learnt prompts: `strategy.kind = "prompt"`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The keys of `strategy.kind = "prompt"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromptTuning {
    /// What the prompts stand before.
    pub modality: PromptModality,
    /// Prompts of the text tower.
    pub context: ContextSettings,
    /// Prompts of the image tower.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextSettings {
    /// What they start from.
    pub start: ContextStart,
    /// Whether all classes share them.
    pub shared: bool,
    /// Where the name stands among them.
    pub position: NamePosition,
}

/// `strategy.context` or `strategy.init`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextStart {
    /// That many vectors of small random numbers.
    Random(usize),
    /// The tokens of these words.
    Words(String),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VisualPromptSettings {
    /// How many, in each block that has its own.
    pub tokens: usize,
    /// Whether every block has its own; otherwise those before the first block go through all of them.
    pub deep: bool,
}

impl PromptTuning {
    /// Whether the text tower may be needed.
    pub fn may_be_text(&self) -> bool {
        self.modality != PromptModality::Visual
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
            ContextStart::Random(count) => write!(f, "{count} words")?,
            ContextStart::Words(words) => write!(f, "words from {words:?}")?,
        }
        write!(f, "{}", if self.shared { "" } else { " of each class" })
    }
}

impl fmt::Display for VisualPromptSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens {}", self.tokens, if self.deep { "in every block" } else { "before the first block" })
    }
}
