//! The resolved settings of classes in words: `[prompts]`.

use crate::forms::{self, OneOrMany};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// `[prompts]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromptSettings {
    /// The sentences around the names.
    #[serde(flatten)]
    pub templates: PromptTemplates,
    /// Names of a class by its label: one, or a list of synonyms and descriptions. Default: the label, with _ and - as
    /// spaces.
    #[serde(default, deserialize_with = "read_names", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, ClassNames>", transform = forms::each_one_or_many)]
    pub classes: BTreeMap<String, Vec<String>>,
}

/// `prompts.preset` or `prompts.templates`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = forms::side_by_side)]
pub enum PromptTemplates {
    /// Sentences around the names of the classes.
    Preset(#[schemars(extend("default" = "simple"))] PromptPreset),
    /// Sentences of your own, each with {} where the name goes.
    #[serde(rename = "templates")]
    Own(#[schemars(length(min = 1, max = 1000), inner(length(min = 1)))] Vec<String>),
}

/// What a class is called.
#[derive(JsonSchema)]
#[allow(dead_code)] // only its schema is of use
pub(super) struct ClassNames(#[schemars(length(min = 1, max = 1000), inner(length(min = 1)))] Vec<String>);

/// Lists of names, or single ones, by class.
pub(super) fn read_names<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let classes = BTreeMap::<String, OneOrMany<String>>::deserialize(deserializer)?;
    Ok(classes.into_iter().map(|(class, names)| (class, names.into())).collect())
}

/// `prompts.preset`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
