//! The sections about features: where they are kept, and what is done with them.

use super::Resolver;
use crate::config::feature_settings::{
    CacheSettings, FeatureChoice, ProbeMethod, ProbeSettings, Refit, TsneMethod, TsneSettings, log_grid,
};
use crate::config::paths;
use crate::config::raw::{Neighbors, Penalty, RawCache, RawProbe, RawReport, RawTsne};
use crate::config::report_settings::ReportSettings;
use crate::config::settings::ClassWeights;

impl Resolver<'_> {
    pub(super) fn cache(&mut self, raw: RawCache) -> CacheSettings {
        CacheSettings {
            dir: raw.dir.map_or_else(paths::cache_folder, |dir| self.path("cache.dir", &dir)),
            max_bytes: raw.max_bytes.unwrap_or(10 << 30),
            views: raw.views.unwrap_or(0),
        }
    }
}

pub(super) fn probe(raw: RawProbe) -> ProbeSettings {
    let mut c = raw.c.map_or_else(c_grid, |c| c.into_vec().into_iter().map(|Penalty(c)| c).collect());
    c.sort_by(f64::total_cmp);
    c.dedup();
    let usual = || vec![5, 10, 20, 100, 200];
    let mut k = raw.k.map_or_else(usual, |k| k.into_vec().into_iter().map(|Neighbors(k)| k).collect());
    k.sort_unstable();
    k.dedup();
    ProbeSettings {
        method: raw.method.unwrap_or(ProbeMethod::Logistic),
        features: raw.features.unwrap_or(FeatureChoice::Pool),
        blocks: raw.blocks.unwrap_or(1),
        standardize: raw.standardize.unwrap_or(false),
        c,
        k,
        folds: raw.folds.unwrap_or(5),
        refit: raw.refit.unwrap_or(Refit::TrainVal),
        class_weights: raw.class_weights.unwrap_or(ClassWeights::None),
        target: raw.target,
    }
}

/// The 45 values of DINOv2's `eval/log_regression.py`, in the range of CLIP's linear probes.
fn c_grid() -> Vec<f64> {
    log_grid(1e-6, 1e5, 45)
}

pub(super) fn report(raw: &RawReport) -> ReportSettings {
    ReportSettings { html: raw.html.unwrap_or(true), mistakes: raw.mistakes.unwrap_or(12) }
}

pub(super) fn tsne(raw: &RawTsne) -> TsneSettings {
    TsneSettings {
        features: raw.features.unwrap_or(FeatureChoice::Pool),
        blocks: raw.blocks.unwrap_or(1),
        perplexity: raw.perplexity.unwrap_or(30.0),
        iterations: raw.iterations.unwrap_or(1000),
        learning_rate: raw.learning_rate,
        method: raw.method.unwrap_or(TsneMethod::Auto),
    }
}
