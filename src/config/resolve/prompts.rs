//! `[prompts]`: templates and names that say something.

use super::Resolver;
use crate::config::document::join;
use crate::config::prompt_settings::{PromptPreset, PromptSettings, PromptTemplates};
use crate::config::raw::{ClassName, RawPrompts};
use std::collections::BTreeMap;

impl Resolver<'_> {
    pub(super) fn prompts(&mut self, raw: RawPrompts) -> PromptSettings {
        let templates = match self.either(("prompts.preset", raw.preset), ("prompts.templates", raw.templates)) {
            (_, Some(templates)) => {
                self.templates(&templates);
                PromptTemplates::Own(templates)
            }
            (preset, None) => PromptTemplates::Preset(preset.unwrap_or(PromptPreset::Simple)),
        };
        let mut classes = BTreeMap::new();
        for (class, names) in raw.classes.unwrap_or_default() {
            let names: Vec<String> = names.into_vec().into_iter().map(|ClassName(name)| name).collect();
            if names.iter().any(|name| name.trim().is_empty()) {
                let hint = "say what its images show, or leave the class out";
                self.problem(&join("prompts.classes", &class), "has a name without words", hint);
            }
            classes.insert(class, names);
        }
        PromptSettings { templates, classes }
    }

    fn templates(&mut self, templates: &[String]) {
        if let Some(template) = templates.iter().find(|template| !template.contains("{}")) {
            let message = format!("{template:?} has no place for the name of the class");
            self.problem("prompts.templates", message, "write {} where the name goes, as in \"a photo of a {}\"");
        }
    }
}
