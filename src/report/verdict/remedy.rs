//! What to do about a verdict.

use super::{Evidence, HIGH_TRAIN, Verdict, VerdictKind};
use crate::config::{LossWeights, Sampler, Settings, StrategySettings};
use crate::data::transform::augments;
use crate::system::shown::listed;

const MORE_IMAGES: &str = "hold out more images (data.val), or judge by folds (data.fold)";
const LOOK_AT_LABELS: &str = "look at the labels (`vitadapt check`, the mistakes in report.html) and whether the images show \
                              what tells the classes apart at this size (model.image_size)";

impl Verdict<'_> {
    /// What to do under these settings, when there is something to do.
    pub fn remedy(&self, settings: &Settings) -> Option<String> {
        let (evidence, more) = (&self.evidence, more_of(settings));
        Some(match self.kind() {
            VerdictKind::Chance if evidence.is_undecided() => format!("{MORE_IMAGES}; then {LOOK_AT_LABELS}"),
            // A model that answers its training images right has been trained for long enough.
            VerdictKind::Chance if evidence.learns_labels_only() => {
                format!("{LOOK_AT_LABELS}; then more images, or another backbone")
            }
            VerdictKind::Chance => format!("{LOOK_AT_LABELS}; then train for longer, or {more}"),
            VerdictKind::MissesClass => find_the_class(evidence, settings),
            VerdictKind::OverFits if evidence.kept_later() => {
                let others = against_overfitting(settings);
                format!("keep the epoch of the lowest loss (early_stop.metric = \"log_loss\"), or {others}")
            }
            VerdictKind::OverFits => against_overfitting(settings),
            VerdictKind::StillImproving => format!("raise train.epochs (or train.steps) or train.lr, or {more}"),
            VerdictKind::TooFewImages if evidence.finds_few().is_some() => {
                format!("{MORE_IMAGES}; {}", find_the_class(evidence, settings))
            }
            VerdictKind::TooFewImages => MORE_IMAGES.into(),
            VerdictKind::Ok if evidence.best_is_last() => {
                "the last epoch is the best: more epochs may gain (train.epochs)".into()
            }
            VerdictKind::Ok => return None,
        })
    }
}

fn find_the_class(evidence: &Evidence<'_>, settings: &Settings) -> String {
    let plain = settings.train.class_weights == LossWeights::None && settings.train.sampler == Sampler::Shuffle;
    let judge = if settings.inspection.good.is_empty() {
        "judge by score ([inspection] good = \"…\")"
    } else {
        "judge by the thresholds of [inspection], not by the largest probability"
    };
    let weighable = plain && evidence.misses_rare();
    if evidence.ranks_missed() && !weighable {
        let longer = if evidence.train_accuracy() > HIGH_TRAIN {
            ""
        } else {
            "train for longer (train.epochs) or faster (train.lr), or "
        };
        format!("the order of the scores tells the classes apart all the same (AUROC): {longer}{judge}")
    } else if weighable {
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
        some => format!("try {}", listed(some, "or")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::settings;
    use crate::train::validation::ValidationHistory;

    #[test]
    fn what_was_trained_whole_cannot_be_trained_more() {
        let history = ValidationHistory::default();
        let nothing =
            Evidence { epochs: &[], best_epoch: None, history: &history, mixed: false, val: None, test: None };
        for kind in [VerdictKind::Chance, VerdictKind::StillImproving, VerdictKind::MissesClass] {
            let verdict = Verdict { evidence: nothing, findings: vec![(kind, String::new())] };
            let partial = verdict.remedy(&settings(&["strategy.kind=partial"])).unwrap();
            assert!(partial.contains("or train more of the model"), "{partial}");
            let full = verdict.remedy(&settings(&["strategy.kind=full"])).unwrap();
            assert!(full.contains("or take a larger backbone") && !full.contains("more of the model"), "{full}");
        }
    }
}
