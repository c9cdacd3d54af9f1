//! What the settings do about classes of unequal size.

use crate::config::{LossSettings, LossWeights, Sampler, Settings};
use crate::data::class_weights::{class_weights, logit_offsets};
use crate::data::{Dataset, Split};
use crate::nn::Criterion;
use crate::report::Console;

/// The training loss, with what it needs to know of the classes' sizes.
pub fn criterion(settings: &Settings, dataset: &Dataset) -> Criterion {
    let train = &settings.train;
    let counts = dataset.class_counts(Split::Train);
    let (focal_gamma, logit_offsets) = match train.loss {
        LossSettings::CrossEntropy => (0.0, Vec::new()),
        LossSettings::Focal { gamma } => (gamma, Vec::new()),
        LossSettings::LogitAdjusted { tau } => (0.0, logit_offsets(tau, &counts)),
    };
    Criterion {
        label_smoothing: train.label_smoothing as f32,
        class_weights: class_weights(train.class_weights, &counts),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::settings;
    use crate::data::testing::sample;

    #[test]
    fn rare_classes_weigh_more_when_the_settings_say_so() {
        let dataset = Dataset {
            classes: vec!["common".into(), "rare".into()],
            samples: [0, 0, 0, 1].map(|label| sample("a.png", label, Split::Train)).into(),
            ..Dataset::default()
        };
        let criterion = |set: &str| criterion(&settings(&[set]), &dataset);
        let plain = criterion("train.label_smoothing=0.25");
        assert_eq!((plain.label_smoothing, plain.class_weights.len(), plain.logit_offsets.len()), (0.25, 0, 0));
        let weights = criterion("train.class_weights=inverse").class_weights;
        assert!((weights[1] / weights[0] - 3.0).abs() < 1e-6, "{weights:?}");
        let offsets = criterion("train.loss=logit_adjusted").logit_offsets;
        assert!((offsets[0] - offsets[1] - 3f32.ln()).abs() < 1e-6, "{offsets:?}");
    }
}
