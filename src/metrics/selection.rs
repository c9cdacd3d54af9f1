//! The one number by which settings are compared on held-out images.

use super::calibration::nll;
use super::{Confusion, Scores, UNBALANCED, auroc, average_precision, mean};
use crate::config::MetricChoice;
use serde::{Deserialize, Serialize};

/// What settings are compared by; more is better, but of the log loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectionMetric {
    /// The share of right answers.
    Accuracy,
    /// The mean recall of the classes.
    BalancedAccuracy,
    /// The mean F1 of the classes.
    MacroF1,
    /// The mean one-vs-rest area under the ROC curve.
    Auroc,
    /// The mean one-vs-rest average precision.
    AveragePrecision,
    /// The mean of −ln p of the true class.
    LogLoss,
}

impl SelectionMetric {
    /// The metric that is asked for; when none is, accuracy, or balanced accuracy where one class has more than
    /// [`UNBALANCED`] times the training images of another.
    pub fn new(choice: MetricChoice, counts: &[usize]) -> Self {
        match choice {
            MetricChoice::Auto => Self::of_counts(counts),
            MetricChoice::Accuracy => Self::Accuracy,
            MetricChoice::BalancedAccuracy => Self::BalancedAccuracy,
            MetricChoice::MacroF1 => Self::MacroF1,
            MetricChoice::Auroc => Self::Auroc,
            MetricChoice::AveragePrecision => Self::AveragePrecision,
            MetricChoice::LogLoss => Self::LogLoss,
        }
    }

    fn of_counts(counts: &[usize]) -> Self {
        let present = || counts.iter().copied().filter(|&count| count > 0);
        let (fewest, most) = (present().min().unwrap_or(1), present().max().unwrap_or(1));
        if most as f64 > UNBALANCED * fewest as f64 { Self::BalancedAccuracy } else { Self::Accuracy }
    }

    /// Whether rare classes count as much as common ones.
    pub fn counts_classes_alike(self) -> bool {
        !matches!(self, Self::Accuracy | Self::LogLoss)
    }

    /// Its name in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::BalancedAccuracy => "balanced accuracy",
            Self::MacroF1 => "macro F1",
            Self::Auroc => "AUROC",
            Self::AveragePrecision => "average precision",
            Self::LogLoss => "log loss",
        }
    }

    /// How good scores are, higher is better; none when it is undefined.
    pub fn score(self, scores: &Scores) -> Option<f64> {
        let confusion = || Confusion::new(scores.labels(), &scores.predicted(), scores.classes());
        let each = || scores.each_against_the_rest();
        match self {
            Self::Accuracy => Some(confusion().accuracy()),
            Self::BalancedAccuracy => Some(confusion().balanced_accuracy()),
            Self::MacroF1 => Some(confusion().macro_f1()),
            Self::Auroc => mean(each().filter_map(|(column, positive)| auroc(&column, &positive))),
            Self::AveragePrecision => {
                mean(each().filter_map(|(column, positive)| average_precision(&column, &positive)))
            }
            Self::LogLoss => nll(scores, 1.0).map(|loss| -loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::evaluate;

    #[test]
    fn scores_are_those_of_an_evaluation() {
        let logits = [3.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 2.0, 0.5, 0.0, 1.0, 0.3];
        let (labels, classes) = ([0, 1, 0, 2], ["a", "b", "c"].map(str::to_owned));
        let whole = evaluate("val", &logits, &labels, &classes, 1.0, &[]).unwrap();
        let scores = Scores::new(&logits, &labels, 3).unwrap();
        let precision = whole.per_class.iter().filter_map(|class| class.average_precision).sum::<f64>() / 3.0;
        for (metric, wanted) in [
            (SelectionMetric::Accuracy, whole.accuracy),
            (SelectionMetric::BalancedAccuracy, whole.balanced_accuracy),
            (SelectionMetric::MacroF1, whole.macro_f1),
            (SelectionMetric::Auroc, whole.auroc_macro.unwrap()),
            (SelectionMetric::AveragePrecision, precision),
            (SelectionMetric::LogLoss, -whole.nll.unwrap()),
        ] {
            assert!((metric.score(&scores).unwrap() - wanted).abs() < 1e-12, "{metric:?}");
        }
    }

    #[test]
    fn unbalanced_classes_count_alike() {
        let auto = |counts: &[usize]| SelectionMetric::new(MetricChoice::Auto, counts);
        assert_eq!(auto(&[20, 30, 0]), SelectionMetric::Accuracy);
        assert_eq!(auto(&[20, 31]), SelectionMetric::BalancedAccuracy);
        assert_eq!(SelectionMetric::new(MetricChoice::MacroF1, &[20, 31]), SelectionMetric::MacroF1);
    }
}
