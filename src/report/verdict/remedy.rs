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
            // A model that answers its training images right has been trained for long enough.
            VerdictKind::Chance if self.learns_labels_only => {
                Some(format!("{LOOK_AT_LABELS}; then more images, or another backbone"))
            }
            VerdictKind::Chance => Some(format!("{LOOK_AT_LABELS}; then train for longer, or {}", more_of(settings))),
            VerdictKind::MissesClass => Some(self.find_the_class(settings)),
            VerdictKind::OverFits if self.kept_later => Some(format!(
                "keep the epoch of the lowest loss (early_stop.metric = \"log_loss\"), or {}",
                against_overfitting(settings)
            )),
            VerdictKind::OverFits => Some(against_overfitting(settings)),
            VerdictKind::StillImproving => {
                Some(format!("raise train.epochs (or train.steps) or train.lr, or {}", more_of(settings)))
            }
            VerdictKind::TooFewImages if self.found_few => {
                Some(format!("{MORE_IMAGES}; {}", self.find_the_class(settings)))
            }
            VerdictKind::TooFewImages => Some(MORE_IMAGES.into()),
            VerdictKind::Ok if self.best_is_last => {
                Some("the last epoch is the best: more epochs may gain (train.epochs)".into())
            }
            VerdictKind::Ok => None,
        }
    }

    fn find_the_class(&self, settings: &Settings) -> String {
        let plain = settings.train.class_weights == LossWeights::None && settings.train.sampler == Sampler::Shuffle;
        let judge = if settings.inspection.good.is_empty() {
            "judge by score ([inspection] good = \"…\")"
        } else {
            "judge by the thresholds of [inspection], not by the largest probability"
        };
        if self.ranks_missed && !(self.misses_rare && plain) {
            let longer = if self.learnt { "" } else { "train for longer (train.epochs) or faster (train.lr), or " };
            format!("the order of the scores tells the classes apart all the same (AUROC): {longer}{judge}")
        } else if self.misses_rare && plain {
            format!(
                "let rare classes count (train.class_weights = \"balanced\" or train.sampler = \"balanced\"), or {judge}"
            )
        } else {
            let sharper = match settings.preprocess.tiles {
                Some(_) => "",
                None => "a larger model.image_size, tiles (preprocess.tiles) where its flaws are small, ",
            };
            let more = more_of(settings);
            format!(
                "look at its images (the mistakes in report.html) and its labels; then collect more of them, {sharper}or {more}"
            )
        }
    }
}

/// How to give training more capacity; of a model that was trained as a whole there is no more to train.
fn more_of(settings: &Settings) -> &'static str {
    if settings.strategy == StrategySettings::Full { "take a larger backbone" } else { "train more of the model" }
}

/// The usual remedies that are not in use yet, then what is left.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::settings;

    fn remedy(kind: VerdictKind, learns_labels_only: bool, strategy: &str) -> String {
        let verdict = Verdict {
            findings: vec![(kind, String::new())],
            numbers: String::new(),
            undecided: false,
            misses_rare: false,
            ranks_missed: false,
            learnt: false,
            found_few: false,
            learns_labels_only,
            kept_later: false,
            best_is_last: false,
        };
        verdict.remedy(&settings(&[&format!("strategy.kind={strategy}")])).unwrap()
    }

    #[test]
    fn what_was_trained_whole_cannot_be_trained_more() {
        for kind in [VerdictKind::Chance, VerdictKind::StillImproving, VerdictKind::MissesClass] {
            assert!(remedy(kind, false, "partial").contains("or train more of the model"), "{kind}");
            let full = remedy(kind, false, "full");
            assert!(full.contains("or take a larger backbone") && !full.contains("more of the model"), "{full}");
        }
    }

    #[test]
    fn what_has_learnt_its_training_labels_is_not_to_train_for_longer() {
        assert!(remedy(VerdictKind::Chance, false, "full").contains("train for longer"));
        let learnt = remedy(VerdictKind::Chance, true, "full");
        assert!(learnt.ends_with("then more images, or another backbone"), "{learnt}");
    }
}
