//! Settings that contradict each other, in numbers and texts.

use super::document::join;
use super::prompt_settings::{PromptSettings, PromptTemplates};
use super::rules::RuleCheck;
use super::settings::{DataSettings, NormalizeChoice, PreprocessSettings, ResizeMode, Settings};
use super::train_settings::{TrainLength, TrainSettings};
use crate::system::shown::{agree, counted};

impl RuleCheck<'_> {
    /// Notes what cannot be meant.
    pub(super) fn sense(&mut self, settings: &Settings) {
        let name = &settings.run.name;
        if !is_folder_name(name) {
            let hint = "expected at most 200 bytes without separators and control characters, not . or ..";
            self.problem("run.name", format!("{name:?} is not a plain folder name"), hint);
        }
        self.fractions(&settings.data);
        self.classes(&settings.data);
        self.length(&settings.train);
        self.tiles(&settings.preprocess);
        self.prompts(&settings.prompts);
        let side = settings.probe.neighborhood;
        if side.is_multiple_of(2) {
            let message = format!("a square of {side} patches a side has no patch in its middle");
            self.problem("probe.neighborhood", message, "expected an odd number, such as 1 or 3");
        }
    }

    /// Each class goes one way.
    fn classes(&mut self, data: &DataSettings) {
        let mut ways: Vec<(&str, String)> =
            data.ignore.iter().map(|class| (class.trim(), "data.ignore".to_owned())).collect();
        for (to, from) in &data.classes {
            let key = join("data.classes", to);
            if to.trim().is_empty() {
                self.problem(&key, "has no name", "write the new name before the equals sign, in quotes");
            }
            for class in from {
                if let Some((_, other)) = ways.iter().find(|(known, _)| *known == class.trim()) {
                    let message = format!("the class {class:?} is in {other} already");
                    self.conflict(&key, &[other], message, "leave it out of one of them");
                }
                ways.push((class.trim(), key.clone()));
            }
        }
    }

    fn fractions(&mut self, &DataSettings { val, test, .. }: &DataSettings) {
        if val + test >= 1.0 {
            let test_given = self.given.get("data.test").is_some();
            let (key, other) = if test_given { ("data.test", "data.val") } else { ("data.val", "data.test") };
            let message = format!("val {val} and test {test} leave nothing for training");
            self.conflict(key, &[other], message, "their sum must be below 1");
        }
    }

    fn length(&mut self, train: &TrainSettings) {
        const WARMUP: &str = "train.warmup";
        let (batch_size, warmup) = (train.batch_size, train.warmup);
        if let Some(accumulate) = train.accumulate.filter(|&parts| parts > batch_size) {
            let message = format!("cannot cut {} into {accumulate} micro-batches", counted(batch_size, "image"));
            self.conflict("train.accumulate", &["train.batch_size"], message, "expected at most train.batch_size");
        }
        if warmup >= 1.0 && warmup.fract() != 0.0 {
            let hint = "expected a share below 1 or a whole number";
            self.problem(WARMUP, format!("{warmup} is not a number of steps"), hint);
        } else if let TrainLength::Steps(steps) = train.length
            && warmup >= 1.0
            && warmup >= steps as f64
        {
            let message = {
                let (of_warmup, all) = (counted(warmup as usize, "step"), counted(steps, "step"));
                format!(
                    "{of_warmup} of warm-up out of {all} {} none to train at full rate",
                    agree(warmup as usize, "leaves", "leave")
                )
            };
            self.conflict(WARMUP, &["train.steps"], message, "expected fewer than train.steps");
        }
        if train.soup == 1 {
            self.problem("train.soup", "the mean of one epoch is that epoch", "expected 0 (off), or at least 2");
        }
    }

    /// Tiles take the place of the resize, and each is standardised by itself.
    fn tiles(&mut self, preprocess: &PreprocessSettings) {
        const TILES: &str = "preprocess.tiles";
        if preprocess.tiles.is_none() {
            return;
        }
        if preprocess.resize != ResizeMode::Squash {
            let hint = "leave preprocess.resize out, or set preprocess.tiles = false";
            self.conflict(TILES, &["preprocess.resize"], "cuts images instead of resizing them", hint);
        }
        if preprocess.normalize == NormalizeChoice::Batch {
            let hint = "set preprocess.normalize to \"dataset\" or \"robust\", or preprocess.tiles = false";
            let message =
                "leaves no batches of whole images for preprocess.normalize = \"batch\" to take its statistics from";
            self.conflict(TILES, &["preprocess.normalize"], message, hint);
        }
    }

    fn prompts(&mut self, prompts: &PromptSettings) {
        if let PromptTemplates::Own(templates) = &prompts.templates
            && let Some(template) = templates.iter().find(|template| !template.contains("{}"))
        {
            let message = format!("{template:?} has no place for the name of the class");
            self.problem("prompts.templates", message, "write {} where the name goes, as in \"a photo of a {}\"");
        }
        for (class, names) in &prompts.classes {
            if names.iter().any(|name| name.trim().is_empty()) {
                let hint = "say what its images show, or leave the class out";
                self.problem(&join("prompts.classes", class), "has a name without words", hint);
            }
        }
    }
}

/// Whether `name` can name one folder: nothing that leads elsewhere, that a terminal would not show, or that is too
/// long for a file system (255 bytes, less what is appended while files are written).
pub(super) fn is_folder_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 200
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control())
}
