//! What is given, made ready for the layers below it: absolute paths, one name for what is loaded, keys that imply others.

use super::document::join;
use super::layers::properties;
use super::paths;
use super::rules::RuleCheck;
use crate::config::{DeviceChoice, Fold};
use crate::forms::{ONLY, PATH};
use crate::system::shown::Shown;
use std::path::Path;
use std::str::FromStr;
use toml::Value;

impl RuleCheck<'_> {
    /// Settles all sections.
    pub(super) fn settle(&mut self) {
        self.parsed::<DeviceChoice>("run.device", |text| format!("unknown device {text:?}"));
        self.parsed::<Fold>("data.fold", |text| format!("{text:?} is not a fold"));
        self.statistics();
        self.modality();
        self.manifest_root();
        self.keys("", self.schema);
        self.source();
        self.fold();
        self.blocks();
        self.inspection();
        self.backbone();
        self.paths();
    }

    /// Refuses text that is none of a type's.
    fn parsed<T: FromStr<Err = &'static str>>(&mut self, key: &str, message: impl Fn(&str) -> String) {
        let Some(text) = self.given.get(key).and_then(Value::as_str).map(str::to_owned) else { return };
        if let Err(hint) = text.parse::<T>() {
            self.problem(key, message(&text), hint);
            self.given.remove(key);
        }
    }

    /// `explicit` is implied by statistics, and needs both.
    fn statistics(&mut self) {
        const NORMALIZE: &str = "preprocess.normalize";
        let keys = ["preprocess.mean", "preprocess.std"];
        if self.given.get(NORMALIZE).is_none() && keys.iter().any(|key| self.given.get(key).is_some()) {
            self.given.insert(NORMALIZE, "explicit".into());
        }
        if self.effective(NORMALIZE).as_deref() == Some("explicit") {
            for key in keys.into_iter().filter(|key| self.given.get(key).is_none()).collect::<Vec<_>>() {
                self.missing(key, &[NORMALIZE], "explicit normalisation needs both mean and std");
            }
        }
    }

    /// Learnt prompts are what the other keys are about.
    fn modality(&mut self) {
        const MODALITY: &str = "strategy.modality";
        if self.effective("strategy.kind").as_deref() != Some("prompt") || self.given.get(MODALITY).is_some() {
            return;
        }
        let first = |modality: &str| {
            let mut keys = properties(&self.schema["properties"]["strategy"]);
            let about = |only: &serde_json::Value| only["key"] == "modality" && only["values"][0] == modality;
            let found = keys.find(|(name, inner)| {
                let key = join("strategy", name);
                self.given.get(&key).is_some() && inner[ONLY].as_array().is_some_and(|only| only.iter().any(about))
            });
            found.map(|(name, _)| join("strategy", name))
        };
        match (first("text"), first("visual")) {
            (Some(text), Some(visual)) => {
                let message = format!("is about images, but {text} about text");
                let hint = "set strategy.modality = \"text\" or \"visual\" and leave the keys of the other out";
                self.conflict(&visual, &[&text, MODALITY], message, hint);
                // So that each is not refused once more.
                self.given.insert(MODALITY, "auto".into());
            }
            (Some(_), None) => self.given.insert(MODALITY, "text".into()),
            (None, Some(_)) => self.given.insert(MODALITY, "visual".into()),
            (None, None) => {}
        }
    }

    /// Where a manifest may lead outside its folder, a root beside it is what its paths are relative to.
    fn manifest_root(&mut self) {
        const ROOT: &str = "data.root";
        const MANIFEST: &str = "data.manifest";
        const BASE: &str = "data.base";
        let allowed = self.given.get("data.allow_outside").and_then(Value::as_bool) == Some(true);
        if !allowed || self.given.get(MANIFEST).is_none() {
            return;
        }
        // On the command line one of them takes the place of what the file says, its base included.
        if self.supersedes(ROOT, MANIFEST) || self.supersedes(MANIFEST, ROOT) && self.given.get(ROOT).is_some() {
            if !self.given.is_overridden(BASE) {
                self.given.remove(BASE);
            }
            return;
        }
        let base = self.base(ROOT).to_path_buf();
        if let Some(Value::String(root)) = self.given.remove(ROOT) {
            let root = paths::absolute(&base, Path::new(&root)).to_string_lossy().into_owned();
            self.given.insert(BASE, root.into());
        }
    }

    fn source(&mut self) {
        if self.given.get("data.root").is_none() && self.given.get("data.manifest").is_none() {
            let hint = "name a folder of class folders, or data.manifest, a CSV with path,label";
            self.missing("data.root", &["data.manifest"], hint);
            // So that the rest can be read.
            self.given.insert("data.root", String::new().into());
        }
    }

    /// A fold says which images are tested.
    fn fold(&mut self) {
        const FOLD: &str = "data.fold";
        const TEST: &str = "data.test";
        if self.given.get(FOLD).is_none() {
            return;
        }
        if self.given.get(TEST).is_some() && !self.supersedes(FOLD, TEST) {
            let message = "has no effect with data.fold, which says what is tested";
            self.conflict(TEST, &[FOLD], message, "leave one of them out");
        }
        self.given.insert(TEST, 0.0.into());
    }

    fn blocks(&mut self) {
        const BLOCKS: &str = "strategy.blocks";
        if self.given.get(BLOCKS).and_then(Value::as_table).is_some_and(toml::Table::is_empty) {
            let keys = ["strategy.blocks.first", "strategy.blocks.last"];
            self.conflict(BLOCKS, &keys, "says neither first nor last", "expected { first = N } or { last = N }");
        }
    }

    fn inspection(&mut self) {
        let given = |name: &str| self.given.get(&join("inspection", name)).is_some();
        if !given("good") && ["prevalence", "costs", "max_escape", "max_overkill"].into_iter().any(given) {
            self.missing("inspection.good", &[], "name the class of sound parts; every other class is a defect");
        }
        let costs = self.given.get("inspection.costs").and_then(Value::as_table).cloned();
        for name in ["escape", "overkill", "look"] {
            if costs.as_ref().is_some_and(|costs| !costs.contains_key(name)) {
                let hint = "escape, overkill and look are weighed against each other";
                self.missing(&join("inspection.costs", name), &[], hint);
            }
        }
    }

    /// A path made absolute, or a hub id with `model.revision` in it: what is loaded has one name.
    fn backbone(&mut self) {
        const BACKBONE: &str = "model.backbone";
        let Some(text) = self.effective(BACKBONE) else { return };
        match paths::backbone(self.base(BACKBONE), &text) {
            Ok(backbone) => {
                let backbone = self.at_revision(backbone);
                self.given.insert(BACKBONE, backbone.into());
            }
            Err(path) => {
                let message = format!("{} is not valid UTF-8", path.shown());
                self.problem(BACKBONE, message, "rename the folder, or move the weights");
            }
        }
    }

    fn at_revision(&mut self, backbone: String) -> String {
        const BACKBONE: &str = "model.backbone";
        const REVISION: &str = "model.revision";
        // An override beats the revision in the file.
        let superseded = self.supersedes(BACKBONE, REVISION);
        let revision = self.given.remove(REVISION).filter(|_| !superseded);
        let Some(revision) = revision.as_ref().and_then(Value::as_str) else { return backbone };
        if !paths::may_be_hub_id(&backbone) {
            let message = format!("has no effect with model.backbone = {backbone:?}");
            self.conflict(REVISION, &[BACKBONE], message, "it is for models of the hub, owner/name");
            return backbone;
        }
        match backbone.split_once('@') {
            Some((_, given)) if given != revision && !self.supersedes(REVISION, BACKBONE) => {
                let message = format!("{revision:?} contradicts model.backbone = {backbone:?}");
                self.conflict(REVISION, &[BACKBONE], message, "leave one of them out");
                backbone
            }
            Some((id, _)) => format!("{id}@{revision}"),
            None => format!("{backbone}@{revision}"),
        }
    }

    fn paths(&mut self) {
        let sections = properties(self.schema);
        let keys: Vec<String> = sections
            .flat_map(|(section, inner)| properties(inner).map(move |(name, inner)| (join(section, name), inner)))
            .filter(|(_, inner)| inner.get(PATH).is_some())
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            let Some(text) = self.given.get(&key).and_then(Value::as_str).map(str::to_owned) else { continue };
            match paths::absolute(self.base(&key), Path::new(&text)).into_os_string().into_string() {
                Ok(path) => self.given.insert(&key, path.into()),
                Err(path) => {
                    let message = format!("{} is not valid UTF-8", path.shown());
                    self.problem(&key, message, "rename the folder");
                }
            }
        }
    }
}
