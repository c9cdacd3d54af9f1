//! How far the scores of good and of defective parts lie apart, whatever the threshold: what a picture shows.

use super::{Inspection, Parts};
use crate::error::Result;
use crate::metrics::Scores;
use crate::metrics::ranking::Ranking;

/// The scores of both sides and the thresholds that judge them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Separation {
    /// The probabilities of a defect of the good parts.
    pub good: Vec<f64>,
    /// Those of the defective parts.
    pub defective: Vec<f64>,
    /// Thresholds by name, ascending; those that agree once.
    pub thresholds: Vec<(String, f64)>,
    /// (defects found, good parts rejected) at every threshold, from none to all.
    points: Vec<(u64, u64)>,
}

impl Inspection {
    /// The scores behind it, of logits (n, classes) with the true classes; none when one of the sides is absent or a score
    /// is not a number.
    ///
    /// # Errors
    /// A usage error when it is about other classes.
    pub fn separation<T: Copy + Into<f64>>(
        &self,
        logits: &[T],
        labels: &[usize],
        classes: &[String],
        temperature: f64,
    ) -> Result<Option<Separation>> {
        let scores = Scores::new(logits, labels, classes.len())?;
        let parts = Parts::by_name(&scores, temperature, &self.good, classes)?;
        let Some(ranking) = Ranking::new(&parts.scores) else { return Ok(None) };
        let curve = ranking.curve(&parts.defect, |_| 1);
        if curve.sides().is_none() {
            return Ok(None);
        }
        let of = |side: bool| {
            let scores = parts.scores.iter().zip(&parts.defect).filter(|&(_, &defect)| defect == side);
            scores.map(|(&score, _)| score).collect()
        };
        Ok(Some(Separation {
            good: of(false),
            defective: of(true),
            thresholds: self.named_thresholds(),
            points: curve.points().to_vec(),
        }))
    }

    fn named_thresholds(&self) -> Vec<(String, f64)> {
        let points = self.operating_points.iter().filter_map(|point| Some((point.rule.to_string(), point.threshold?)));
        let band = self.band.map(|band| band.band);
        let band =
            band.map(|band| [("accept below".to_owned(), band.accept_below), ("reject from".into(), band.reject_from)]);
        let mut all: Vec<(String, f64)> = points.chain(band.into_iter().flatten()).collect();
        // Stable: of rules that agree the first, the strictest, gives the name.
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        all.dedup_by(|later, first| later.1 == first.1);
        all
    }
}

impl Separation {
    /// The ROC curve: the share of good parts that is rejected, and that of defects that is found.
    pub fn roc(&self) -> Vec<(f64, f64)> {
        let (goods, defects) = (self.good.len() as f64, self.defective.len() as f64);
        self.points.iter().map(|&(found, rejected)| (rejected as f64 / goods, found as f64 / defects)).collect()
    }

    /// The share of defects that is found, and that of defects among the rejected parts.
    pub fn precision_recall(&self) -> Vec<(f64, f64)> {
        let defects = self.defective.len() as f64;
        let rejecting = self.points.iter().filter(|(found, rejected)| found + rejected > 0);
        rejecting.map(|&(found, rejected)| (found as f64 / defects, found as f64 / (found + rejected) as f64)).collect()
    }

    /// What a threshold does: the share of good parts that is rejected, and that of defects that is found.
    pub fn at(&self, threshold: f64) -> (f64, f64) {
        let from =
            |scores: &[f64]| scores.iter().filter(|&&score| score >= threshold).count() as f64 / scores.len() as f64;
        (from(&self.good), from(&self.defective))
    }
}
