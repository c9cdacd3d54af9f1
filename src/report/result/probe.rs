//! The result of `probe`.

use super::{served, share, share_within};
use crate::cache::CacheUse;
use crate::config::{FeatureChoice, PoolChoice, ProbeMethod, TilePool};
use crate::data::Split;
use crate::metrics::{Inspection, SelectionMetric};
use crate::probe::SettingScore;
use crate::report::key_value_table;
use crate::system::shown::{Shown, significant};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `probe --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// The run directory.
    pub run: PathBuf,
    /// `probe`
    pub strategy: String,
    /// The classifier.
    pub method: ProbeMethod,
    /// Which tokens it reads.
    pub features: FeatureChoice,
    /// From how many last blocks they are read.
    pub blocks: usize,
    /// The chosen C, k or β.
    pub chosen: f64,
    /// Whether that is the first or last value that was tried.
    #[serde(default)]
    pub at_edge: bool,
    /// What settings were compared by on held-out images; equal ones by the cross-entropy.
    pub metric: Option<SelectionMetric>,
    /// Beside β, the weight of the votes.
    pub alpha: Option<f64>,
    /// The images that it was chosen on, in words.
    pub chosen_on: String,
    /// The images it was fitted on in the end.
    pub fitted_on: Vec<Split>,
    /// The objective at the end of the fit; none where images vote.
    pub objective: Option<f64>,
    /// Values of the head.
    pub trainable_parameters: usize,
    /// All values.
    pub total_parameters: usize,
    /// On the images it was fitted on.
    pub train_accuracy: f64,
    /// On images it had not seen.
    pub val_accuracy: f64,
    /// After the last fit.
    pub test_accuracy: Option<f64>,
    /// Its 95 % interval.
    pub test_accuracy_ci95: Option<[f64; 2]>,
    /// Wall time.
    pub seconds: f64,
    /// Largest resident memory.
    pub peak_memory_bytes: Option<u64>,
    /// How often the backbone had to run.
    pub cache: CacheUse,
    /// One point a setting, ascending.
    pub path: Vec<PathPoint>,
    /// The accuracy that is wanted, if one is.
    pub target: Option<f64>,
    /// What the score means, and what is worth trying next.
    pub advice: String,
    /// When a good class is named.
    pub inspection: Option<Inspection>,
    /// How tokens became features.
    #[serde(default = "own_pool")]
    pub pool: PoolChoice,
    /// How the tiles of an image became one, where images were cut.
    pub tile_pool: Option<TilePool>,
    /// What each pooling scored that it was chosen from; empty when it was given.
    #[serde(default)]
    pub pools: Vec<PoolScore>,
}

/// A pooling's score on held-out images, at the best setting of the probe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PoolScore {
    /// The pooling.
    pub pool: PoolChoice,
    /// That of the tiles, where it was chosen too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile_pool: Option<TilePool>,
    /// Accuracy.
    pub val_accuracy: f64,
    /// What poolings are compared by.
    pub val_score: f64,
}

/// Runs of older versions do not say.
fn own_pool() -> PoolChoice {
    PoolChoice::Backbone
}

/// The scores of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PathPoint {
    /// C, k or β.
    pub setting: f64,
    /// On the images it was fitted on.
    pub train_accuracy: f64,
    /// On images it had not seen.
    pub val_accuracy: f64,
    /// There, the metric that settings are compared by.
    pub val_score: Option<f64>,
    /// There, the mean cross-entropy; none when it is not finite.
    pub val_loss: Option<f64>,
    /// The objective; none where images vote.
    pub objective: Option<f64>,
    /// Newton steps.
    pub iterations: usize,
    /// Whether every solve reached the tolerance.
    pub converged: bool,
}

impl From<&SettingScore> for PathPoint {
    fn from(point: &SettingScore) -> Self {
        Self {
            setting: point.setting,
            train_accuracy: point.train_accuracy,
            val_accuracy: point.validation_accuracy,
            val_score: Some(point.validation_score).filter(|score| score.is_finite()),
            val_loss: Some(point.validation_loss).filter(|loss| loss.is_finite()),
            objective: point.objective,
            iterations: point.iterations,
            converged: point.converged,
        }
    }
}

impl ProbeResult {
    pub(super) fn table(&self) -> String {
        let chosen = self.chosen;
        let setting = match (self.method, self.alpha) {
            (_, Some(alpha)) => format!("α = {}, β = {}", significant(alpha, 4), significant(chosen, 4)),
            (ProbeMethod::Knn, None) => format!("k = {chosen}"),
            _ => format!("C = {}", significant(chosen, 4)),
        };
        let metric = self.metric.unwrap_or(SelectionMetric::Accuracy);
        let mut rows = vec![
            ("probe", self.method.to_string()),
            ("chosen", format!("{setting} by {} on {}", metric.in_words(), self.chosen_on)),
            ("training accuracy", share(Some(self.train_accuracy))),
            ("held-out accuracy", share(Some(self.val_accuracy))),
            ("test accuracy", share_within(self.test_accuracy, self.test_accuracy_ci95)),
            ("features", served(self.cache)),
            ("time", format!("{:.1} s", self.seconds)),
            ("advice", self.advice.clone()),
            ("run", self.run.shown()),
        ];
        if !self.pools.is_empty() {
            let named = |pool: PoolChoice, tiles: Option<TilePool>| {
                tiles.map_or_else(|| pool.to_string(), |tiles| format!("{pool}, {tiles} of tiles"))
            };
            let score = |tried: &PoolScore| format!("{} {:.4}", named(tried.pool, tried.tile_pool), tried.val_score);
            let scores: Vec<String> = self.pools.iter().map(score).collect();
            let of_tiles = self.tile_pool.filter(|_| self.pools.iter().any(|tried| tried.tile_pool.is_some()));
            let (chosen, metric) = (named(self.pool, of_tiles), metric.in_words());
            let sentence = format!("{chosen} by {metric} on {}: {}", self.chosen_on, scores.join("; "));
            rows.insert(1, ("pooling", sentence));
        }
        key_value_table(&rows)
    }
}
