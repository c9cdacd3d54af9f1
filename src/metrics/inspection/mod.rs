//! What an inspection engineer asks of a classifier: how many defects escape, how many good parts are rejected, at which
//! threshold, and how many parts a person has to look at.
//!
//! The score of an image is the probability of a defect, 1 − p(good) after temperature scaling. Thresholds are chosen on
//! validation images once ([`Rules`]) and applied unchanged to every other image; what is read off the ranking of the
//! scored images themselves says so.

mod choose;
mod rate;
mod report;
mod resample;
mod separation;

pub use rate::{Estimate, Interval, Rate};
pub use report::{BandOutcome, Inspection, OperatingPoint, RecallAtOverkill, RuleOutcome};
pub use separation::Separation;

use super::{Scores, softmax};
use crate::config::{BandGoal, Costs, InspectionSettings, for_unknown_class};
use crate::error::{Error, Result};
use crate::forms::shown_as_written;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How parts are judged: fixed on validation images, stored in `run.json`, applied to every image after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The classes of sound parts.
    pub good: Vec<String>,
    /// The share of defective parts in production, if it was stated.
    pub prevalence: Option<f64>,
    /// What mistakes and looks cost, if it was stated.
    pub costs: Option<Costs>,
    /// Number of good parts among the images that thresholds were chosen on; 0 without validation images.
    pub chosen_on_goods: u64,
    /// Likewise the defective parts.
    pub chosen_on_defects: u64,
    /// Thresholds by their rule; undefined when the validation images had no defect or no good part.
    pub thresholds: Vec<Threshold>,
    /// The two thresholds between which a person looks, if costs or limits asked for them.
    pub band: Option<Band>,
}

/// A rule with the threshold that it led to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// How it was chosen.
    #[serde(flatten)]
    pub rule: ThresholdRule,
    /// A part is defective from this score on.
    pub threshold: Option<f64>,
}

/// How it is decided whether a part is defective.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum ThresholdRule {
    /// By the class of the largest probability, without a threshold.
    LargestProbability,
    /// The highest threshold at which no defective validation image was accepted.
    NoEscapes,
    /// The threshold that found most defects among those that rejected at most this share of the good validation images.
    OverkillAtMost {
        /// The share.
        max_overkill: f64,
    },
}

impl fmt::Display for ThresholdRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LargestProbability => f.pad("largest probability"),
            Self::NoEscapes => f.pad("no escapes"),
            Self::OverkillAtMost { max_overkill } => f.pad(&format!("overkill up to {} %", 100.0 * max_overkill)),
        }
    }
}

/// Two thresholds between which a person looks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Parts with a lower score are accepted.
    pub accept_below: f64,
    /// Parts with this score or a higher one are rejected.
    pub reject_from: f64,
}

/// What is to be done with a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Accept it.
    Good,
    /// Reject it.
    Defect,
    /// Have a person look at it.
    Review,
}

shown_as_written!(Decision);

impl Band {
    /// The decision by a score. A part whose score is not a number is never accepted.
    pub fn decide(&self, score: f64) -> Decision {
        if score < self.accept_below {
            Decision::Good
        } else if score >= self.reject_from {
            Decision::Defect
        } else {
            Decision::Review
        }
    }
}

/// Which of the classes are good, one entry per class; none when the settings name no good class.
///
/// # Errors
/// A usage error for a class that the data does not have, and when no class is left for defects.
pub fn good_classes(good: &[String], classes: &[String]) -> Result<Option<Vec<bool>>> {
    if let Some(unknown) = good.iter().find(|name| !classes.contains(name)) {
        let message = format!("inspection.good: the data has no class {unknown:?}");
        return Err(Error::usage_hint(message, for_unknown_class(unknown, classes)));
    }
    if good.is_empty() {
        return Ok(None);
    }
    let is_good: Vec<bool> = classes.iter().map(|class| good.contains(class)).collect();
    if is_good.iter().all(|&good| good) {
        let hint = "leave the classes of defective parts out of inspection.good";
        return Err(Error::usage_hint("inspection.good names every class, so there are no defects", hint));
    }
    Ok(Some(is_good))
}

impl Rules {
    /// Chooses thresholds on `held_out`, images that the model was not fitted on, with their calibrated temperature; none
    /// when the settings name no good class. Without held-out images there are no thresholds.
    ///
    /// # Errors
    /// As [`good_classes`].
    pub fn choose(
        settings: &InspectionSettings,
        classes: &[String],
        held_out: Option<(&Scores, f64)>,
    ) -> Result<Option<Self>> {
        let Some(is_good) = good_classes(&settings.good, classes)? else { return Ok(None) };
        let parts = held_out.map_or_else(Parts::default, |(scores, t)| Parts::new(scores, t, &is_good));
        let (goods, defects) = parts.sides();
        Ok(Some(Self {
            good: settings.good.clone(),
            prevalence: settings.prevalence,
            costs: match settings.band {
                Some(BandGoal::Costs(costs)) => Some(costs),
                Some(BandGoal::Limits(_)) | None => None,
            },
            chosen_on_goods: goods,
            chosen_on_defects: defects,
            thresholds: choose::thresholds(&parts),
            band: settings.band.and_then(|goal| choose::band(&parts, goal, settings.prevalence)),
        }))
    }

    /// What happens to a part with these probabilities (k): by the band if there is one, else by the largest of them.
    pub fn decide(&self, probabilities: &[f64], classes: &[String]) -> Decision {
        if let Some(band) = &self.band {
            return band.decide(self.score(probabilities, classes));
        }
        let largest = super::scores::argmax(probabilities);
        let good = classes.get(largest).is_some_and(|class| self.good.contains(class));
        if good { Decision::Good } else { Decision::Defect }
    }

    /// The probability of a defect, of calibrated probabilities (k).
    pub fn score(&self, probabilities: &[f64], classes: &[String]) -> f64 {
        defect_probability(probabilities, classes.iter().map(|class| self.good.contains(class)))
    }

    /// Why thresholds are missing.
    pub fn doubts(&self) -> Option<String> {
        let absent = match (self.chosen_on_goods, self.chosen_on_defects) {
            (0, 0) => return Some("inspection thresholds are chosen on validation images, and there are none".into()),
            (0, _) => "good",
            (_, 0) => "defective",
            _ => return None,
        };
        Some(format!("the validation images show no {absent} part: no inspection threshold can be chosen"))
    }
}

/// Summed over the classes of defects, not subtracted from one: small probabilities keep their digits.
fn defect_probability(probabilities: &[f64], is_good: impl Iterator<Item = bool>) -> f64 {
    let sum: f64 = probabilities.iter().zip(is_good).filter(|(_, good)| !good).map(|(p, _)| p).sum();
    // Rounding may lift it above 1. NaN stays NaN, which `min` would hide.
    if sum > 1.0 { 1.0 } else { sum }
}

/// Scored images as parts that are good or not.
#[derive(Default)]
struct Parts {
    /// The probability of a defect.
    scores: Vec<f64>,
    /// Whether the largest probability is that of a defect.
    called: Vec<bool>,
    /// The truth.
    defect: Vec<bool>,
}

impl Parts {
    fn new(scores: &Scores, temperature: f64, is_good: &[bool]) -> Self {
        let score = |(row, _): (&[f64], usize)| defect_probability(&softmax(row, temperature), is_good.iter().copied());
        Self {
            scores: scores.rows().map(score).collect(),
            called: scores.predicted().iter().map(|&class| !is_good[class]).collect(),
            defect: scores.labels().iter().map(|&label| !is_good[label]).collect(),
        }
    }

    /// The same where a rule names the good classes.
    fn by_name(scores: &Scores, temperature: f64, good: &[String], classes: &[String]) -> Result<Self> {
        let is_good = good_classes(good, classes)?.unwrap_or_else(|| vec![false; classes.len()]);
        Ok(Self::new(scores, temperature, &is_good))
    }

    /// How many are good, and how many are not.
    fn sides(&self) -> (u64, u64) {
        let defects = self.defect.iter().filter(|&&defect| defect).count();
        ((self.defect.len() - defects) as u64, defects as u64)
    }
}

#[cfg(test)]
mod tests;
