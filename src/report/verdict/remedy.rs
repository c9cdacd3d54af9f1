//! What to do about a verdict.

use super::{Verdict, VerdictKind};
use crate::config::{LossWeights, Sampler, Settings, StrategySettings};
use crate::data::transform::augments;

const MORE_IMAGES: &str = "hold out more images (data.val), or judge by folds (data.fold)";
const LOOK_AT_LABELS: &str = "look at the labels (`vitadapt check`, the mistakes in report.html) and whether the images show \
                              what tells the classes apart at this size (model.image_size)";

impl Verdict {
    /// What to do under these settings, when there is something to do.
    pub fn remedy(&self, settings: &Settings) -> Option<String> {
        match self.kind() {
            VerdictKind::Chance if self.undecided => Some(format!("{MORE_IMAGES}; then {LOOK_AT_LABELS}")),
            // What knows its training images by heart has trained enough.
            VerdictKind::Chance if self.memorised => {
                Some(format!("{LOOK_AT_LABELS}; then more images, or another backbone"))
            }
            VerdictKind::Chance => Some(format!("{LOOK_AT_LABELS}; then train for longer, or train more of the model")),
            VerdictKind::MissesClass => Some(self.find_the_class(settings)),
            VerdictKind::OverFits if self.kept_later => Some(format!(
                "keep the epoch of the lowest loss (early_stop.metric = \"log_loss\"), or {}",
                against_overfitting(settings)
            )),
            VerdictKind::OverFits => Some(against_overfitting(settings)),
            VerdictKind::StillImproving => {
                Some("raise train.epochs (or train.steps) or train.lr, or train more of the model".into())
            }
            VerdictKind::TooFewImages if self.found_few => {
                Some(format!("{MORE_IMAGES}; {}", self.find_the_class(settings)))
            }
            VerdictKind::TooFewImages => Some(MORE_IMAGES.into()),
            VerdictKind::Ok if self.best_is_last => {
                Some("the last epoch is the best: more may gain (train.epochs)".into())
            }
            VerdictKind::Ok => None,
        }
    }

    fn find_the_class(&self, settings: &Settings) -> String {
        let plain = settings.train.class_weights == LossWeights::None && settings.train.sampler == Sampler::Shuffle;
        if self.misses_rare && plain {
            let judge = if settings.inspection.good.is_empty() {
                "judge by score ([inspection] good = \"…\")"
            } else {
                "judge by the thresholds of [inspection], not by the largest probability"
            };
            format!(
                "let rare classes count (train.class_weights = \"balanced\" or train.sampler = \"balanced\"), or {judge}"
            )
        } else {
            let sharper = match settings.preprocess.tiles {
                Some(_) => "more of the model",
                None => {
                    "a larger model.image_size, tiles (preprocess.tiles) where its flaws are small, or more of the model"
                }
            };
            format!("look at its images (the mistakes in report.html) and its labels; more of them, {sharper}")
        }
    }
}

/// The remedies of the article that are not in use yet, then what is left.
fn against_overfitting(settings: &Settings) -> String {
    let all = [
        (settings.model.head_dropout == 0.0, "dropout (model.head_dropout = 0.2)"),
        (!augments(&settings.augment), "augmentation (augment.preset = \"light\")"),
        (settings.early_stop.patience == 0, "early stopping (early_stop.patience = 5)"),
        (settings.strategy == StrategySettings::Full, "training fewer blocks (strategy.kind = \"partial\")"),
    ];
    let unused: Vec<&str> = all.iter().filter(|(unused, _)| *unused).map(|(_, remedy)| *remedy).collect();
    match unused.as_slice() {
        [] => "more images, fewer epochs or a smaller backbone".into(),
        [one] => format!("try {one}"),
        [before @ .., last] => format!("try {} or {last}", before.join(", ")),
    }
}
