//! What a finished training is worth: whether it learned its task, its training images, or nothing.
//!
//! Everything is judged against chance and with its uncertainty, and a change between epochs on the same images:
//!
//! - *chance*: on validation or test images neither is the accuracy's 95 % interval above always naming the commonest
//!   class, nor does any class have an AUROC above 1/2 (Mann and Whitney's test, Bonferroni over the classes), although
//!   useful scores of as many images would be; an accuracy above the baseline is called undecided, not as bad as chance;
//! - *misses a class*: fewer than half of its images are found (binomial test at 5 %, Bonferroni over the classes), or
//!   nothing of more classes than chance leaves (at 1 %), where each has too few images to be tested alone;
//! - *over-fits*: since the epoch of the lowest validation loss that loss has risen (paired t-test at 5 %, and by more
//!   than a quarter and 0.1 nats) while the training loss fell, and no more images are right for it; or since the best
//!   epoch fewer validation images are right (`McNemar`'s exact test at 1 %, as the best was chosen); or, the rule of
//!   thumb of the article this tool grew from, training accuracy exceeds 95 % and validation accuracy is below 80 %,
//!   with its interval below that of training;
//! - *still improving*: the last epoch is the best, and the validation loss of the last epochs falls (paired t-test at
//!   5 %, and by more than 5 % and 0.01 nats);
//! - *too few images*: fewer than 20 validation images, or fewer than 5 of a class in validation and test together, or a
//!   class of which fewer than half are found, but of so few that this may be chance.
//!
//! On fewer than 20 images nothing but a missed class can be asserted: five images are not a trend.

mod remedy;
#[cfg(test)]
mod situations_tests;

use super::table::{percent, within};
use crate::forms::shown_as_written;
use crate::metrics::{ClassReport, Evaluation, is_rare, missed_classes, no_better_than_chance, ranks_well};
use crate::system::shown::{are, printable};
use crate::train::progress::{EpochRecord, Progress};
use crate::train::validation::ValidationHistory;
use serde::Serialize;

const HIGH_TRAIN: f64 = 0.95;
const LOW_ACCURACY: f64 = 0.80;
/// A rise of the validation loss matters when it is more than this share of the lowest, and than so many nats.
const RISE: (f64, f64) = (0.25, 0.1);
/// Likewise a fall over the last epochs.
const FALL: (f64, f64) = (0.05, 0.01);
/// The p-value below which the accuracy fell since the best epoch.
const FELL: f64 = 0.01;
/// The p-value below which it rose since the lowest loss.
const ROSE: f64 = 0.05;
const FEWEST_IMAGES: usize = 20;
const FEWEST_OF_CLASS: u64 = 5;
/// Missed classes that are named.
const NAMED: usize = 3;

/// What can be said of a training run, from the gravest to the mildest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// It does no better than chance on images that it was not trained on.
    Chance,
    /// It does not find a class.
    MissesClass,
    /// From some epoch on it learned its training images at the cost of others.
    OverFits,
    /// It ended while it still improved.
    StillImproving,
    /// There are too few images to say.
    TooFewImages,
    /// None of these.
    Ok,
}

shown_as_written!(VerdictKind);

/// What a verdict is based on.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The epochs, in order.
    pub epochs: &'a [EpochRecord],
    /// The epoch that is kept.
    pub best_epoch: Option<usize>,
    /// Image by image.
    pub history: &'a ValidationHistory,
    /// Whether a mean of weights took the place of that epoch.
    pub mixed: bool,
    /// The kept model on the validation images.
    pub val: Option<&'a Evaluation>,
    /// The kept model on the test images.
    pub test: Option<&'a Evaluation>,
}

/// The judgement of a training run.
#[derive(Debug, Clone)]
pub struct Verdict<'a> {
    evidence: Evidence<'a>,
    /// All that holds, the gravest first; never empty.
    findings: Vec<(VerdictKind, String)>,
}

impl Verdict<'_> {
    /// The gravest that holds.
    pub fn kind(&self) -> VerdictKind {
        self.findings.first().map_or(VerdictKind::Ok, |(kind, _)| *kind)
    }

    /// The scores with their uncertainty, then all that holds, in words.
    pub fn sentence(&self) -> String {
        let words: Vec<&str> = self.findings.iter().map(|(_, words)| words.as_str()).collect();
        format!("{}: {}", self.evidence.numbers(), words.join("; "))
    }
}

/// `1 of 8`
fn found_of(class: &ClassReport) -> String {
    format!("{} of {}", (class.recall * class.support as f64).round(), class.support)
}

fn above_baseline(evaluation: &Evaluation) -> bool {
    evaluation.accuracy > evaluation.majority_baseline
}

impl<'a> Evidence<'a> {
    /// The evidence of a training run at its end, and of the model that it leaves.
    pub fn new(progress: &'a Progress, val: Option<&'a Evaluation>, test: Option<&'a Evaluation>) -> Self {
        let best_epoch = progress.early_stop.best_epoch();
        Self { epochs: &progress.history, best_epoch, history: &progress.validation, mixed: false, val, test }
    }

    /// Judges by the rules above.
    pub fn verdict(self) -> Verdict<'a> {
        let mut findings = Vec::new();
        let mut find = |kind, words: Option<String>| findings.extend(words.map(|words| (kind, words)));
        find(VerdictKind::Chance, self.chance());
        find(VerdictKind::MissesClass, self.misses_class());
        find(VerdictKind::OverFits, self.over_fits());
        find(VerdictKind::StillImproving, self.still_improving());
        find(VerdictKind::TooFewImages, self.too_few_images());
        let few = self.finds_few().map(|(by, class)| {
            let (name, split) = (printable(&class.class), by.split_name());
            format!("too few images to say whether class {name} is missed: {} found on {split}", found_of(class))
        });
        find(VerdictKind::TooFewImages, few);
        if findings.is_empty() {
            let all_right = if self.all_right() { ", and every image is classified correctly" } else { "" };
            findings.push((VerdictKind::Ok, format!("no sign of over-fitting{all_right}")));
        }
        Verdict { evidence: self, findings }
    }

    /// Whether scores that may be chance are above the baseline, so that more images may show them to be better.
    fn is_undecided(&self) -> bool {
        self.by_chance().is_some_and(above_baseline)
    }

    /// Whether it scores no better than chance, but does on the images that it was trained on.
    fn learns_labels_only(&self) -> bool {
        self.by_chance().is_some_and(|by_chance| self.knows_more_than(by_chance))
    }

    /// Whether a class that it misses, or of which it finds few, is rare.
    fn misses_rare(&self) -> bool {
        self.missed().is_some_and(|(by, missed)| missed.iter().any(|class| is_rare(class, by)))
            || self.finds_few().is_some_and(|(by, class)| is_rare(class, by))
    }

    /// Whether it misses one of two classes whose scores rank the images well, so that another threshold finds it.
    fn ranks_missed(&self) -> bool {
        self.missed().is_some_and(|(by, missed)| by.per_class.len() == 2 && ranks_well(missed[0]))
    }

    /// Whether the epoch that is kept came after the lowest validation loss.
    fn kept_later(&self) -> bool {
        self.history.lowest().zip(self.best_epoch).is_some_and(|((lowest, _), best)| lowest < best)
    }

    /// Whether the last epoch is the kept one, and there is something left to gain.
    fn best_is_last(&self) -> bool {
        let last = self.epochs.last().map(|epoch| epoch.epoch);
        last.is_some() && self.best_epoch == last && self.val.is_some() && !self.all_right()
    }

    fn evaluations(&self) -> impl Iterator<Item = &'a Evaluation> {
        self.val.into_iter().chain(self.test)
    }

    fn all_right(&self) -> bool {
        self.evaluations().all(|evaluation| evaluation.accuracy == 1.0)
    }

    fn numbers(&self) -> String {
        self.val.map_or("no validation images".into(), |val| {
            let interval = val.accuracy_ci95.map(|bounds| format!("95 %: {}", within(bounds)));
            let interval = interval.unwrap_or("all of one group".into());
            let baseline = percent(val.majority_baseline);
            format!("validation accuracy {} ({interval}), baseline {baseline}", percent(val.accuracy))
        })
    }

    /// The last epoch's share of right answers on training images.
    fn train_accuracy(&self) -> f64 {
        self.epochs.last().map_or(0.0, |epoch| epoch.train_accuracy)
    }

    /// Validation, when it has enough images to tell.
    fn telling(&self) -> Option<&'a Evaluation> {
        self.val.filter(|val| val.n >= FEWEST_IMAGES)
    }

    /// The first scores that are no better than chance.
    fn by_chance(&self) -> Option<&'a Evaluation> {
        self.evaluations().find(|evaluation| evaluation.n >= FEWEST_IMAGES && no_better_than_chance(evaluation))
    }

    fn chance(&self) -> Option<String> {
        let by_chance = self.by_chance()?;
        let split = by_chance.split_name();
        if above_baseline(by_chance) {
            return Some(format!("not shown to be better than chance on {split}"));
        }
        let what = if self.knows_more_than(by_chance) { "learns the training labels only: " } else { "" };
        Some(format!("{what}no better than chance on {split}"))
    }

    /// Whether it answers the images that it was trained on better than these, beyond noise.
    fn knows_more_than(&self, others: &Evaluation) -> bool {
        self.train_accuracy() > others.accuracy_ci95.map_or(others.accuracy, |[_, high]| high)
    }

    /// The classes that are not found and the images by which: those of test, or of validation when none is missed there.
    fn missed(&self) -> Option<(&'a Evaluation, Vec<&'a ClassReport>)> {
        let missed = [self.test, self.val].into_iter().flatten().map(|split| (split, missed_classes(split)));
        missed.into_iter().find(|(_, missed)| !missed.is_empty())
    }

    fn misses_class(&self) -> Option<String> {
        let (by, missed) = self.missed()?;
        let found = |class: &&ClassReport| format!("{}: {} found", class.class, found_of(class));
        let named: Vec<String> = missed.iter().take(NAMED).map(found).collect();
        let more = match missed.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("misses class {}{more} on {}", named.join(", "), by.split_name()))
    }

    /// The class of which the smallest share is found, if that is fewer than half and might be chance, and the images by
    /// which; none where worse is said already, and of many classes, some of which have few images right.
    fn finds_few(&self) -> Option<(&'a Evaluation, &'a ClassReport)> {
        if self.by_chance().is_some() || self.missed().is_some() {
            return None;
        }
        let few = |by: &'a Evaluation| {
            let classes = by.per_class.iter().filter(|class| class.support >= FEWEST_OF_CLASS && class.recall < 0.5);
            let least = classes.min_by(|a, b| a.recall.total_cmp(&b.recall))?;
            (by.n >= FEWEST_IMAGES && by.per_class.len() <= FEWEST_IMAGES).then_some((by, least))
        };
        self.test.and_then(few).or_else(|| self.val.and_then(few))
    }

    fn over_fits(&self) -> Option<String> {
        let val = self.telling()?;
        let kept = |epoch: usize| match self.best_epoch {
            _ if self.mixed => " (a mean of weights is kept)".to_owned(),
            Some(best) if best == epoch => ", which is kept".to_owned(),
            Some(best) => format!(" (epoch {best} is kept)"),
            None => String::new(),
        };
        if let Some((epoch, [before, after], [low, high])) = self.loss_rise() {
            return Some(format!(
                "over-fits after epoch {epoch}{}: validation loss {before:.3} to {after:.3} (rise, 95 %: {low:.3} to {high:.3})",
                kept(epoch)
            ));
        }
        if let (Some(best), Some((_, _, last)), Some(epoch)) =
            (self.history.best(), self.history.recent(), self.best_epoch)
        {
            let (gained, p) = best.gain(last);
            if gained < 0 && p < FELL {
                let lost = -gained;
                return Some(format!(
                    "over-fits after epoch {epoch}{}: {lost} fewer of {} validation images {} right at the last epoch",
                    kept(epoch),
                    val.n,
                    are(lost as usize)
                ));
            }
        }
        let train = self.epochs.iter().map(|epoch| epoch.train_accuracy).fold(0.0, f64::max);
        let gap = train > HIGH_TRAIN
            && val.accuracy < LOW_ACCURACY
            && val.accuracy_ci95.is_some_and(|[_, high]| high < HIGH_TRAIN);
        gap.then(|| format!("over-fits: training accuracy reaches {}", percent(train)))
    }

    /// The epoch of the lowest loss, that loss and the last one, and the interval of the rise, when it counts.
    fn loss_rise(&self) -> Option<(usize, [f64; 2], [f64; 2])> {
        let (epoch, lowest) = self.history.lowest()?;
        let (_, _, last) = self.history.recent()?;
        let change = lowest.loss_change(last)?;
        let train_loss = |epoch: &EpochRecord| epoch.train_loss;
        let at_lowest = self.epochs.iter().find(|record| record.epoch == epoch).map(train_loss)?;
        let memorises = self.epochs.last().map(train_loss)? < at_lowest;
        let rises = change.difference() > (RISE.0 * change.before).max(RISE.1) && change.interval[0] > 0.0;
        // More confident and more often right is not over-fitting.
        let (gained, p) = lowest.gain(last);
        let pays = gained > 0 && p < ROSE;
        (memorises && rises && !pays).then_some((epoch, [change.before, change.after], change.interval))
    }

    fn still_improving(&self) -> Option<String> {
        self.telling()?;
        let last_epoch = self.epochs.last()?.epoch;
        let (before, epochs, last) = self.history.recent()?;
        let is_best = self.best_epoch == Some(last_epoch) || self.history.lowest()?.0 == last_epoch;
        let change = before.loss_change(last)?;
        let falls = -change.difference() > (FALL.0 * change.before).max(FALL.1) && change.interval[1] < 0.0;
        let ceiling = last.right.iter().all(|&right| right);
        let count = if epochs == 1 { "epoch".to_owned() } else { format!("{epochs} epochs") };
        (is_best && falls && !ceiling).then(|| {
            format!(
                "still improving at the last epoch: validation loss {:.3} to {:.3} over the last {count}",
                change.before, change.after
            )
        })
    }

    fn too_few_images(&self) -> Option<String> {
        let Some(val) = self.val else {
            return Some("too few images to judge by: there is no validation split".into());
        };
        if val.n < FEWEST_IMAGES {
            return Some(format!("too few images to judge by: {} in validation", val.n));
        }
        let images = |class: usize| -> u64 {
            self.evaluations().filter_map(|e| e.per_class.get(class)).map(|c| c.support).sum()
        };
        let (rarest, fewest) =
            (0..val.per_class.len()).map(|class| (class, images(class))).min_by_key(|&(_, images)| images)?;
        // Of many classes none is judged alone.
        let rare = fewest < FEWEST_OF_CLASS && fewest > 0 && val.per_class.len() <= FEWEST_IMAGES;
        rare.then(|| {
            let name = printable(&val.per_class[rarest].class);
            format!("too few images to judge class {name} by: {fewest} in validation and test")
        })
    }
}
