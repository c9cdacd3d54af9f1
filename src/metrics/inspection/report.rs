//! How the rules did on the images of a split: the section `inspection` of `eval-<split>.json`.

use super::choose::OVERKILLS;
use super::{Band, Decision, Estimate, Parts, Rate, Rules, Threshold, ThresholdRule, resample};
use crate::config::Costs;
use crate::error::Result;
use crate::metrics::{Scores, interval};
use serde::{Deserialize, Serialize};

/// Parts in a million.
const MILLION: f64 = 1e6;

/// Escapes, overkill and what they depend on. What is undefined is `null` in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The classes of sound parts.
    pub good: Vec<String>,
    /// Images of good parts.
    pub goods: u64,
    /// Images of defective parts.
    pub defects: u64,
    /// The share of defective parts in production, if it was stated.
    pub prevalence: Option<f64>,
    /// The outcome of each rule, with thresholds fixed on validation; the largest probability first.
    pub operating_points: Vec<OperatingPoint>,
    /// The outcome of the two thresholds between which a person looks, fixed on validation.
    pub band: Option<BandOutcome>,
    /// The area under the ROC curve of the defect probability.
    pub auroc: Estimate,
    /// The average precision of the defect probability.
    pub average_precision: Estimate,
    /// The most defects found by any threshold with so little overkill: the best one in hindsight, on these very images.
    pub recall_at_overkill: Vec<RecallAtOverkill>,
    /// The least overkill of any threshold without an escape, likewise in hindsight.
    pub overkill_at_zero_escapes: Estimate,
}

/// What one rule does to parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// The rule.
    #[serde(flatten)]
    pub rule: ThresholdRule,
    /// Its threshold, from validation images; none for the largest probability, and when they support none.
    pub threshold: Option<f64>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: RuleOutcome,
}

/// How many mistakes a rule makes, and what they amount to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RuleOutcome {
    /// Defective parts that are accepted without review.
    pub escape: Rate,
    /// Good parts that are rejected without review.
    pub overkill: Rate,
    /// Escapes in a million parts at the stated prevalence.
    pub escapes_ppm: Estimate,
    /// Good parts rejected in a million parts at the stated prevalence.
    pub overkill_ppm: Estimate,
    /// The expected cost of a part at the stated costs, and at the stated prevalence or else that of these images.
    pub cost_per_part: Option<f64>,
}

/// What two thresholds do to parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BandOutcome {
    /// The thresholds.
    #[serde(flatten)]
    pub band: Band,
    /// Parts that a person reviews.
    pub review: Rate,
    /// Their expected share at the stated prevalence.
    pub review_in_production: Option<f64>,
    /// What came of the others.
    #[serde(flatten)]
    pub outcome: RuleOutcome,
}

/// How many defects are found when few good parts may be rejected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecallAtOverkill {
    /// The share of good parts that may be rejected.
    pub max_overkill: f64,
    /// The share of defects found.
    pub recall: Estimate,
}

impl Inspection {
    /// Applies `rules` to scored images. `groups` names each image's group (none = its own) and may be empty.
    ///
    /// # Errors
    /// A usage error when the rules are about other classes.
    pub fn new(
        scores: &Scores,
        temperature: f64,
        classes: &[String],
        groups: &[Option<&str>],
        rules: &Rules,
    ) -> Result<Self> {
        let parts = Parts::by_name(scores, temperature, &rules.good, classes)?;
        let unit = interval::units(scores.len(), groups);
        let judge = Judge { parts: &parts, rules, unit: &unit };
        let (goods, defects) = parts.sides();
        let [auroc, average_precision, overkill_at_zero_escapes, recalls @ ..] =
            resample::estimates(&parts.scores, &parts.defect, &unit);
        let recall = |(max_overkill, recall)| RecallAtOverkill { max_overkill, recall };
        Ok(Self {
            good: rules.good.clone(),
            goods,
            defects,
            prevalence: rules.prevalence,
            operating_points: judge.operating_points(),
            band: rules.band.map(|band| judge.band(band)),
            auroc,
            average_precision,
            recall_at_overkill: OVERKILLS.into_iter().zip(recalls).map(recall).collect(),
            overkill_at_zero_escapes,
        })
    }

    /// What came of the decision that `predict` makes: that of the band, or else of the largest probability.
    pub fn decided(&self) -> Option<RuleOutcome> {
        let point = self.operating_points.iter().find(|point| point.rule == ThresholdRule::LargestProbability);
        self.band.map(|band| band.outcome).or(point.map(|point| point.outcome))
    }

    /// What is undefined, and why.
    pub fn gaps(&self) -> Option<String> {
        match (self.goods, self.defects) {
            (_, 0) => Some("no image shows a defective part: escapes are undefined".into()),
            (0, _) => Some("no image shows a good part: overkill is undefined".into()),
            _ => None,
        }
    }
}

/// Applies rules to parts.
struct Judge<'a> {
    parts: &'a Parts,
    rules: &'a Rules,
    unit: &'a [usize],
}

impl Judge<'_> {
    fn operating_points(&self) -> Vec<OperatingPoint> {
        let called = |defect: bool| if defect { Decision::Defect } else { Decision::Good };
        let decisions: Vec<Decision> = self.parts.called.iter().map(|&defect| called(defect)).collect();
        let largest = OperatingPoint {
            rule: ThresholdRule::LargestProbability,
            threshold: None,
            outcome: self.outcome(&decisions),
        };
        // Without a threshold nothing is decided, and all that follows is undefined. What is not accepted is a defect, as
        // is a part whose score is not a number.
        let from = |threshold: f64| {
            let band = Band { accept_below: threshold, reject_from: threshold };
            self.parts.scores.iter().map(move |&score| called(band.decide(score) != Decision::Good))
        };
        let point = |chosen: &Threshold| {
            let decisions: Vec<Decision> = chosen.threshold.into_iter().flat_map(from).collect();
            OperatingPoint { rule: chosen.rule, threshold: chosen.threshold, outcome: self.outcome(&decisions) }
        };
        std::iter::once(largest).chain(self.rules.thresholds.iter().map(point)).collect()
    }

    fn band(&self, band: Band) -> BandOutcome {
        let decisions: Vec<Decision> = self.parts.scores.iter().map(|&score| band.decide(score)).collect();
        let looked: Vec<bool> = decisions.iter().map(|&decision| decision == Decision::Review).collect();
        let looks = |prevalence| self.expected(&decisions, prevalence, Costs { escape: 0.0, overkill: 0.0, look: 1.0 });
        BandOutcome {
            band,
            review: Rate::new(&looked, &vec![true; looked.len()], self.unit),
            review_in_production: self.rules.prevalence.and_then(looks),
            outcome: self.outcome(&decisions),
        }
    }

    fn outcome(&self, decisions: &[Decision]) -> RuleOutcome {
        let (rules, defect) = (self.rules, &self.parts.defect);
        let good: Vec<bool> = defect.iter().map(|defect| !defect).collect();
        let rate = |wrong: Decision, of: &[bool]| {
            let happened: Vec<bool> = decisions.iter().map(|&decision| decision == wrong).collect();
            Rate::new(&happened, of, self.unit)
        };
        let (escape, overkill) = (rate(Decision::Good, defect), rate(Decision::Defect, &good));
        let ppm = |rate: &Rate, share: fn(f64) -> f64| {
            rules.prevalence.map_or_else(Estimate::default, |p| Estimate::scaled(rate, MILLION * share(p)))
        };
        let defects = escape.of as f64;
        let prevalence = rules.prevalence.unwrap_or(defects / (defects + overkill.of as f64));
        RuleOutcome {
            escape,
            overkill,
            escapes_ppm: ppm(&escape, |p| p),
            overkill_ppm: ppm(&overkill, |p| 1.0 - p),
            cost_per_part: rules.costs.and_then(|costs| self.expected(decisions, prevalence, costs)),
        }
    }

    /// The expected cost of a part when `prevalence` of them are defective. A side that does not occur in production need not
    /// be known.
    fn expected(&self, decisions: &[Decision], prevalence: f64, costs: Costs) -> Option<f64> {
        let side = |defect: bool, weight: f64, wrong: Decision, mistake: f64| {
            if weight == 0.0 {
                return Some(0.0);
            }
            let of = decisions.iter().zip(&self.parts.defect).filter(|(_, truth)| **truth == defect);
            let (total, n) = of.fold((0.0, 0_u32), |(total, n), (&decision, _)| {
                let cost = match decision {
                    Decision::Review => costs.look,
                    decision if decision == wrong => mistake,
                    Decision::Good | Decision::Defect => 0.0,
                };
                (total + cost, n + 1)
            });
            (n > 0).then(|| weight * total / f64::from(n))
        };
        let defects = side(true, prevalence, Decision::Good, costs.escape)?;
        Some(defects + side(false, 1.0 - prevalence, Decision::Defect, costs.overkill)?)
    }
}
