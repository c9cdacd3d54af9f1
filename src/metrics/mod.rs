//! How good a classifier is: numbers from logits and labels, in f64, equal to scikit-learn's.
//!
//! One file a family. A new metric is a function in its family's file and a field in [`Evaluation`], filled in
//! [`evaluate`].

mod calibration;
mod chance;
mod confusion;
mod doubt;
mod evaluation;
mod inspection;
mod interval;
mod kinds;
mod paired;
mod places;
mod ranking;
mod robustness;
mod scores;
mod selection;

use confusion::mean;

pub use calibration::{ECE_BINS, Reliability, ReliabilityBin, fit_temperature, losses, nll};
pub use chance::{
    UNBALANCED, better_than_chance, is_rare, missed_classes, no_better_than_chance, ranks_better_than_chance,
    ranks_well,
};
pub use confusion::{Confusion, confusions};
pub use doubt::{Doubt, DoubtKind};
pub use evaluation::{ClassReport, Evaluation, evaluate};
pub use inspection::{
    Band, BandOutcome, Decision, Estimate, Inspection, Interval, OperatingPoint, Rate, RecallAtOverkill, RuleOutcome,
    Rules, Separation, Threshold, ThresholdRule, good_classes,
};
pub use interval::{accuracy_interval, bootstrap_groups, clopper_pearson, mean_interval};
pub use kinds::{KindScore, ScoredPart, kind_scores};
pub use paired::{PATTERNS, drawn_sign_flip_test, holm, sign_flip_test, standard_deviation, t_interval};
pub use places::{MaskedMap, PlaceTally, Places};
pub use ranking::{auroc, average_precision};
pub use robustness::{FlawScores, Robustness};
pub use scores::{Scores, argmax, softmax};
pub use selection::SelectionMetric;
