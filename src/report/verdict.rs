//! Whether a run learned its task or its training images.
//!
//! The rule of thumb is the one of the article this tool grew from: over-fitting when training accuracy exceeds 95 %
//! and validation stays below 80 %, or when the training loss falls while the validation loss rises. Here that is
//! precisely:
//!
//! - *gap*: the best training accuracy of the run is above 0.95 and its best validation accuracy below 0.80;
//! - *trend*: over the last 5 epochs (at least 3), the least-squares line of the training loss falls and that of the
//!   validation loss rises by more than 5 % of the window's smallest validation loss, and by more than 0.01 nats.
//!   The margins keep the noise of a flat curve from being called a trend.
//!
//! Under-fitting, which the article has no rule for, is the mirror image: both accuracies below 0.80 at their best
//! and both lines of the same window still falling by more than the same margins.

use serde::{Serialize, Serializer};

use super::table::percent;
use crate::config::{Settings, StrategySettings};
use crate::data::transform::augments;
use crate::train::progress::EpochRecord;

const HIGH_TRAIN: f64 = 0.95;
const LOW_ACCURACY: f64 = 0.80;
const WINDOW: usize = 5;
const SHORTEST_WINDOW: usize = 3;
const RELATIVE_MARGIN: f64 = 0.05;
const ABSOLUTE_MARGIN: f64 = 0.01;

/// The judgement of a run's curves. In JSON it is its [`code`](Verdict::code).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No sign of over- or under-fitting.
    Healthy,
    /// The training images are memorised.
    Overfitting {
        /// The numbers that say so.
        reason: String,
    },
    /// Training ended while it was still improving at a low level.
    Underfitting {
        /// The numbers that say so.
        reason: String,
    },
    /// There is no validation to judge by.
    Undecided,
}

impl Verdict {
    /// The code for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Healthy => "ok",
            Self::Overfitting { .. } => "overfitting",
            Self::Underfitting { .. } => "underfitting",
            Self::Undecided => "undecided",
        }
    }

    /// What was found, in a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::Healthy => "no sign of over-fitting".into(),
            Self::Overfitting { reason } => format!("over-fitting: {reason}"),
            Self::Underfitting { reason } => format!("under-fitting: {reason}"),
            Self::Undecided => "undecided: there is no validation split to judge by".into(),
        }
    }

    /// What to do about it under these settings, when there is something to do.
    pub fn remedy(&self, settings: &Settings) -> Option<String> {
        match self {
            Self::Healthy => None,
            Self::Overfitting { .. } => Some(against_overfitting(settings)),
            Self::Underfitting { .. } => {
                Some("train longer (train.epochs), faster (train.lr), or more of the model".into())
            }
            Self::Undecided => Some("set data.val to hold out some training images".into()),
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

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// Judges the epochs of a run, in order, by the rules above. Epochs without validation do not count.
pub fn verdict(epochs: &[EpochRecord]) -> Verdict {
    let validated: Vec<Validated> = epochs.iter().filter_map(Validated::new).collect();
    if validated.is_empty() {
        return Verdict::Undecided;
    }
    let best = |accuracy: fn(&Validated) -> f64| validated.iter().map(accuracy).fold(f64::NAN, f64::max);
    let (train, val) = (best(|e| e.train_accuracy), best(|e| e.val_accuracy));
    let accuracies = format!("training accuracy reaches {}, validation accuracy {}", percent(train), percent(val));
    if train > HIGH_TRAIN && val < LOW_ACCURACY {
        return Verdict::Overfitting { reason: accuracies };
    }
    match Trend::of(&validated) {
        Some(trend) if trend.train < 0.0 && trend.val > trend.margin => Verdict::Overfitting { reason: trend.words() },
        Some(trend) if train < LOW_ACCURACY && val < LOW_ACCURACY && trend.both_fall() => {
            Verdict::Underfitting { reason: format!("{accuracies}, and {}", trend.words()) }
        }
        _ => Verdict::Healthy,
    }
}

/// An epoch that has validation numbers.
struct Validated {
    train_loss: f64,
    train_accuracy: f64,
    val_loss: f64,
    val_accuracy: f64,
}

impl Validated {
    fn new(epoch: &EpochRecord) -> Option<Self> {
        let EpochRecord { train_loss, train_accuracy, .. } = *epoch;
        Some(Self { train_loss, train_accuracy, val_loss: epoch.val_loss?, val_accuracy: epoch.val_accuracy? })
    }
}

/// How far the fitted lines of the losses move over the window, in nats, and what counts as moving.
struct Trend {
    epochs: usize,
    train: f64,
    val: f64,
    margin: f64,
}

impl Trend {
    /// None when there are too few epochs, or a loss among the last ones is not finite.
    fn of(epochs: &[Validated]) -> Option<Self> {
        let window = &epochs[epochs.len().saturating_sub(WINDOW)..];
        let train: Vec<f64> = window.iter().map(|e| e.train_loss).collect();
        let val: Vec<f64> = window.iter().map(|e| e.val_loss).collect();
        let usable = window.len() >= SHORTEST_WINDOW && train.iter().chain(&val).all(|loss| loss.is_finite());
        usable.then(|| {
            let lowest = val.iter().copied().fold(f64::INFINITY, f64::min);
            let margin = (RELATIVE_MARGIN * lowest).max(ABSOLUTE_MARGIN);
            Self { epochs: window.len(), train: fitted_change(&train), val: fitted_change(&val), margin }
        })
    }

    fn both_fall(&self) -> bool {
        self.train < -self.margin && self.val < -self.margin
    }

    fn words(&self) -> String {
        let direction = |change: f64| if change > 0.0 { "rises" } else { "falls" };
        format!(
            "over the last {} epochs the training loss {} by {:.3} and the validation loss {} by {:.3}",
            self.epochs,
            direction(self.train),
            self.train.abs(),
            direction(self.val),
            self.val.abs()
        )
    }
}

/// The change from first to last of the least-squares line through equally spaced values; at least two of them.
fn fitted_change(values: &[f64]) -> f64 {
    let last = (values.len() - 1) as f64;
    let from_middle = |i: usize| i as f64 - last / 2.0;
    let products: f64 = values.iter().enumerate().map(|(i, value)| from_middle(i) * value).sum();
    let squares: f64 = (0..values.len()).map(|i| from_middle(i).powi(2)).sum();
    products / squares * last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Training loss, training accuracy, validation loss, validation accuracy.
    type Row = (f64, f64, f64, f64);

    fn epochs(rows: &[Row]) -> Vec<EpochRecord> {
        let record = |(i, &(train_loss, train_accuracy, val_loss, val_accuracy))| EpochRecord {
            epoch: i + 1,
            train_loss,
            train_accuracy,
            val_loss: Some(val_loss),
            val_accuracy: Some(val_accuracy),
            ..EpochRecord::default()
        };
        rows.iter().enumerate().map(record).collect()
    }

    #[test]
    fn each_rule_has_its_case() {
        let cases: [(&str, &[Row]); 8] = [
            ("overfitting", &[(0.1, 0.96, 0.9, 0.79)]),
            ("ok", &[(0.1, 0.96, 0.9, 0.80)]),
            ("ok", &[(0.1, 0.95, 0.9, 0.60)]),
            ("overfitting", &[(0.5, 0.8, 0.5, 0.85), (0.4, 0.85, 0.55, 0.85), (0.3, 0.9, 0.6, 0.84)]),
            // Two epochs are no trend.
            ("ok", &[(0.5, 0.8, 0.5, 0.85), (0.3, 0.9, 0.6, 0.84)]),
            // A converged run whose validation loss wavers.
            ("ok", &[(0.012, 1.0, 0.051, 0.98), (0.011, 1.0, 0.05, 0.98), (0.01, 1.0, 0.052, 0.98)]),
            ("underfitting", &[(1.1, 0.3, 1.1, 0.3), (1.0, 0.4, 1.0, 0.4), (0.9, 0.5, 0.9, 0.5)]),
            ("ok", &[(1.1, 0.3, 1.1, 0.3), (f64::NAN, 0.3, 1.2, 0.3), (0.9, 0.5, 1.3, 0.3)]),
        ];
        for (wanted, rows) in cases {
            assert_eq!(verdict(&epochs(rows)).code(), wanted, "{rows:?}");
        }
    }

    #[test]
    fn only_the_last_epochs_make_the_trend() {
        let mut rows: Vec<_> =
            (0..6).map(|i| (0.5 - 0.05 * f64::from(i), 0.9, 0.5 + 0.1 * f64::from(i), 0.85)).collect();
        rows.extend((0..5).map(|i| (0.2 - 0.01 * f64::from(i), 0.9, 1.0 - 0.01 * f64::from(i), 0.85)));
        assert_eq!(verdict(&epochs(&rows)), Verdict::Healthy);
    }

    #[test]
    fn without_validation_it_is_undecided() {
        let blind = EpochRecord { epoch: 1, train_loss: 0.1, train_accuracy: 1.0, ..EpochRecord::default() };
        assert_eq!(verdict(&[blind]), Verdict::Undecided);
        assert_eq!(verdict(&[]), Verdict::Undecided);
    }

    #[test]
    fn words_carry_the_numbers_and_the_remedy() {
        let found = verdict(&epochs(&[(0.1, 0.98, 0.9, 0.7)]));
        assert_eq!(found.sentence(), "over-fitting: training accuracy reaches 98.0 %, validation accuracy 70.0 %");
        let remedy = |sets: &[&str]| {
            let sets: Vec<String> = ["data.root=/data"].iter().chain(sets).map(|&set| set.to_owned()).collect();
            found.remedy(&config::load(None, &sets).unwrap()).unwrap()
        };
        assert!(remedy(&["early_stop.patience=0"]).ends_with("or early stopping (early_stop.patience = 5)"));
        let dropout = "try dropout (model.head_dropout = 0.2)";
        assert_eq!(remedy(&["augment.preset=light"]), dropout);
        assert_eq!(
            remedy(&["augment.preset=light", "model.head_dropout=0.1"]),
            "more images, fewer epochs or a smaller backbone"
        );
        assert_eq!(serde_json::to_string(&found).unwrap(), "\"overfitting\"");
    }

    #[test]
    fn the_line_is_the_least_squares_one() {
        assert!((fitted_change(&[1.0, 2.0, 3.0]) - 2.0).abs() < 1e-15);
        // numpy.polyfit([0, 1, 2, 3], [1, 0, 2, 5], 1)[0] * 3
        assert!((fitted_change(&[1.0, 0.0, 2.0, 5.0]) - 4.2).abs() < 1e-12);
    }
}
