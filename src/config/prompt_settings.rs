//! The resolved settings of classes in words: `[prompts]`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[prompts]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromptSettings {
    /// The sentences around the names.
    #[serde(flatten)]
    pub templates: PromptTemplates,
    /// The names of a class by its label, at least one; a class that is not here is called by its label.
    pub classes: BTreeMap<String, Vec<String>>,
}

/// `prompts.preset` or `prompts.templates`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptTemplates {
    /// A list that comes with vitadapt.
    Preset(PromptPreset),
    /// Texts with `{}` for the name, at least one.
    #[serde(rename = "templates")]
    Own(Vec<String>),
}

/// `prompts.preset`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptPreset {
    /// The name alone, for names that are whole sentences.
    Plain,
    /// Photos of things, in seven variations.
    Simple,
    /// Conditions of machine parts, in five sentences.
    Article,
    /// Surfaces and parts under visual inspection, in five sentences.
    Inspection,
}
