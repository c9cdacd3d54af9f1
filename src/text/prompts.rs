//! The prompts of each class: its names in the templates.

use crate::config::{PromptPreset, PromptSettings, PromptTemplates, for_unknown_class};
use crate::error::{Error, Result};

/// The placeholder for the name in a template.
const PLACEHOLDER: &str = "{}";

/// The names of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassPrompts {
    /// Its label in the data.
    pub class: String,
    /// What it is called in prompts: synonyms and descriptions, at least one.
    pub names: Vec<String>,
}

/// Templates and the names that go into them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompts {
    /// Texts with `{}` for the name, at least one.
    pub templates: Vec<String>,
    /// One entry per class, in the order of the data's classes.
    pub classes: Vec<ClassPrompts>,
}

impl Prompts {
    /// Names every class of the data, by `[prompts.classes]` or else by its label with `_` and `-` as spaces.
    ///
    /// # Errors
    /// A usage error for a name of a class that the data does not have, and for a label without a letter or digit.
    pub fn new(settings: &PromptSettings, classes: &[String]) -> Result<Self> {
        if let Some(unknown) = settings.classes.keys().find(|name| !classes.contains(name)) {
            let message = format!("prompts.classes: the data has no class {unknown:?}");
            return Err(Error::usage_hint(message, for_unknown_class(unknown, classes)));
        }
        let named = |class: &String| {
            let names = match settings.classes.get(class) {
                Some(names) => names.clone(),
                None => vec![spoken(class)?],
            };
            Ok(ClassPrompts { class: class.clone(), names })
        };
        Ok(Self {
            templates: templates(&settings.templates),
            classes: classes.iter().map(named).collect::<Result<_>>()?,
        })
    }

    /// The classes whose names have no letters, such as those of folders 0, 1, 2.
    pub fn wordless(&self) -> Vec<&str> {
        let says_nothing = |class: &&ClassPrompts| !class.names.iter().any(|name| name.contains(char::is_alphabetic));
        self.classes.iter().filter(says_nothing).map(|class| class.class.as_str()).collect()
    }

    /// The prompts of a class: each of its names in every template.
    pub fn of(&self, class: usize) -> Vec<String> {
        let names = self.classes.get(class).map_or(&[][..], |class| &class.names);
        names
            .iter()
            .flat_map(|name| self.templates.iter().map(move |template| template.replace(PLACEHOLDER, name)))
            .collect()
    }
}

/// A label as it would be spoken.
fn spoken(label: &str) -> Result<String> {
    let words = label.replace(['_', '-'], " ");
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().any(char::is_alphanumeric) {
        return Ok(words);
    }
    let message = format!("the class {label:?} has no name that a prompt could use");
    Err(Error::usage_hint(message, format!("name it: [prompts.classes] {label:?} = \"what the images show\"")))
}

fn templates(settings: &PromptTemplates) -> Vec<String> {
    let preset: &[&str] = match settings {
        PromptTemplates::Own(templates) => return templates.clone(),
        PromptTemplates::Preset(PromptPreset::Plain) => &["{}"],
        PromptTemplates::Preset(PromptPreset::Simple) => &SIMPLE,
        PromptTemplates::Preset(PromptPreset::Article) => &ARTICLE,
        PromptTemplates::Preset(PromptPreset::Inspection) => &INSPECTION,
    };
    preset.iter().map(|&template| template.to_owned()).collect()
}

/// For things: variations of view and quality, as in the short list that CLIP's authors recommend.
const SIMPLE: [&str; 7] = [
    "a photo of a {}.", "a photo of the {}.", "a close-up photo of a {}.", "a blurry photo of a {}.",
    "a dark photo of a {}.", "a black and white photo of a {}.", "a cropped photo of a {}.",
];

/// For machine faults: five sentences about the condition of a part. They follow the idea of the article that the bearing
/// recipe comes from; its own wording is not at hand.
const ARTICLE: [&str; 5] = [
    "an image of a machine part with {}", "a photo of a component that shows {}",
    "a picture of {} in a rotating machine", "an industrial image that shows {}", "a close-up of a bearing with {}",
];

/// For surfaces under inspection, where a class is a condition: "a scratch", "an intact surface".
const INSPECTION: [&str; 5] = [
    "a photo of {} for visual inspection.",
    "a close-up photo of {} for visual inspection.",
    "a cropped photo of {} for quality control.",
    "an industrial photo of {} on a product.",
    "a photo of a part with {}.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn settings(classes: &[(&str, &[&str])]) -> PromptSettings {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        PromptSettings {
            templates: PromptTemplates::Own(owned(&["a {}.", "{} and {}"])),
            classes: classes
                .iter()
                .map(|(class, names)| ((*class).to_owned(), owned(names)))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_name_goes_into_every_template() {
        let prompts =
            Prompts::new(&settings(&[("good", &["intact part", "fine part"])]), &labels(&["deep_cut--x", "good"]));
        let prompts = prompts.unwrap();
        assert_eq!(prompts.of(0), ["a deep cut x.", "deep cut x and deep cut x"]);
        assert_eq!(
            prompts.of(1),
            ["a intact part.", "intact part and intact part", "a fine part.", "fine part and fine part"]
        );
        assert!(prompts.of(2).is_empty());
    }

    #[test]
    fn names_of_unknown_classes_and_labels_without_words_are_refused() {
        let refused = |settings: &PromptSettings, classes: &[&str]| {
            let error = Prompts::new(settings, &labels(classes)).unwrap_err();
            assert_eq!(error.exit_code() as u8, 2);
            format!("{error} / {}", error.hint().unwrap())
        };
        assert_eq!(
            refused(&settings(&[("scrach", &["x"])]), &["good", "scratch"]),
            "prompts.classes: the data has no class \"scrach\" / did you mean \"scratch\"?"
        );
        assert!(refused(&settings(&[("z", &["x"])]), &["good", "scratch"]).ends_with("the classes are good, scratch"));
        assert!(refused(&settings(&[]), &["_-_", "a"]).contains("\"_-_\" has no name"));
    }

    #[test]
    fn numbers_say_nothing() {
        let prompts = Prompts::new(&settings(&[("1", &["one crack"])]), &labels(&["0", "1", "2_3", "x4"])).unwrap();
        assert_eq!(prompts.wordless(), ["0", "2_3"]);
    }

    #[test]
    fn presets_have_a_place_for_the_name() {
        for preset in [PromptPreset::Plain, PromptPreset::Simple, PromptPreset::Article, PromptPreset::Inspection] {
            let templates = templates(&PromptTemplates::Preset(preset));
            assert!(templates.iter().all(|template| template.matches(PLACEHOLDER).count() == 1), "{templates:?}");
        }
    }
}
