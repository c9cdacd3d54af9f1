//! How far the runs have come, read from their directories.

use super::run::PlannedRun;
use crate::config::{self, PoolChoice, TilePool};
use crate::report::{PREDICTIONS, RunRecord, Status, changes};

/// Settings that cannot change a result: where something lies, which is compared by content, the target, and what mistakes
/// cost.
const IMMATERIAL: [&str; 5] = ["data.root:", "data.manifest:", "model.backbone:", "probe.target:", "inspection"];

/// The images and weights of a run, by content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provenance {
    /// SHA-256 over names, labels and contents of the images.
    pub data: String,
    /// SHA-256 of the pretrained weights.
    pub weights: String,
}

impl Provenance {
    /// The provenance of a run.
    pub fn of(record: &RunRecord) -> Self {
        Self { data: record.data.sha256.clone(), weights: record.backbone.sha256.clone() }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// Complete, with these settings, images and weights.
    Finished(Box<RunRecord>),
    /// Interrupted or under way, with these settings.
    Unfinished(Status),
    /// Made with other settings, images or weights, or damaged: it has to start anew. With the first reason.
    Other(String),
    /// Never started.
    Absent,
}

impl PlannedRun {
    /// Its state; `provenance` is what it has to be made of, when that is known.
    pub fn state(&self, provenance: Option<&Provenance>) -> RunState {
        let folder = self.folder();
        if !folder.join("run.json").exists() {
            return RunState::Absent;
        }
        let saved = RunRecord::read(&folder)
            .and_then(|record| Ok((record, config::load(Some(&folder.join("config.toml")), &[])?)));
        let (record, saved) = match saved {
            Ok(saved) => saved,
            Err(error) => return RunState::Other(error.to_string()),
        };
        // A probe that chooses its pooling writes down which.
        let model = &self.settings.model;
        let choices =
            [("model.pool:", model.pool == PoolChoice::Auto), ("model.tile_pool:", model.tile_pool == TilePool::Auto)];
        let chosen = |change: &str| choices.iter().any(|(key, open)| *open && change.starts_with(key));
        let immaterial = |change: &str| IMMATERIAL.iter().any(|key| change.starts_with(key));
        let material = |change: &String| !(immaterial(change) || chosen(change));
        if let Some(change) = changes(&saved, &self.settings).into_iter().find(material) {
            return RunState::Other(change);
        }
        if record.status != Status::Done {
            return RunState::Unfinished(record.status);
        }
        match provenance {
            Some(provenance) if provenance.data != record.data.sha256 => RunState::Other("from other images".into()),
            Some(provenance) if provenance.weights != record.backbone.sha256 => {
                RunState::Other("from other weights".into())
            }
            _ if !folder.join(PREDICTIONS).is_file() => RunState::Other(format!("has no {PREDICTIONS}")),
            _ => RunState::Finished(Box::new(record)),
        }
    }
}

/// The images and weights of most finished runs; the first among equals, none without any.
pub fn commonest_provenance(runs: &[PlannedRun]) -> Option<Provenance> {
    let origins: Vec<Provenance> = runs
        .iter()
        .filter_map(|run| match run.state(None) {
            RunState::Finished(record) => Some(Provenance::of(&record)),
            _ => None,
        })
        .collect();
    let count = |provenance: &Provenance| origins.iter().filter(|other| *other == provenance).count();
    // `max_by_key` would take the last among equals.
    origins.iter().rev().max_by_key(|provenance| count(provenance)).cloned()
}
