//! What the settings do about classes of unequal size.

use crate::config::{LossSettings, LossWeights, Sampler, Settings};
use crate::data::{Dataset, Split, balance};
use crate::nn::Criterion;
use crate::report::Console;

/// The training loss, with what it needs to know of the classes' sizes.
pub fn criterion(settings: &Settings, dataset: &Dataset) -> Criterion {
    let train = &settings.train;
    let counts = dataset.class_counts(Split::Train);
    let (focal_gamma, logit_offsets) = match train.loss {
        LossSettings::CrossEntropy => (0.0, Vec::new()),
        LossSettings::Focal { gamma } => (gamma, Vec::new()),
        LossSettings::LogitAdjusted { tau } => (0.0, balance::logit_offsets(tau, &counts)),
    };
    Criterion {
        label_smoothing: train.label_smoothing as f32,
        class_weights: balance::class_weights(train.class_weights, &counts),
        focal_gamma,
        logit_offsets,
    }
}

/// Warns of rare classes that are made up for more than once.
pub fn warn_of_double_balance(settings: &Settings, console: &Console) {
    let train = &settings.train;
    let remedies = [
        (train.class_weights != LossWeights::None, "train.class_weights"),
        (train.sampler == Sampler::Balanced, "train.sampler = \"balanced\""),
        (matches!(train.loss, LossSettings::LogitAdjusted { .. }), "train.loss = \"logit_adjusted\""),
    ];
    let chosen: Vec<&str> = remedies.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if chosen.len() > 1 {
        console.warn(format!("{} each make up for rare classes: together they overdo it", chosen.join(" and ")));
    }
}
