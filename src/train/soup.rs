//! A greedy model soup (Wortsman et al. 2022, recipe 1): the mean of the best epochs' parameters.
//!
//! Epochs are tried from the best down; one stays in the soup when the mean with it scores no worse on the validation
//! images than the mean without it. So the soup is never worse there than the single best epoch.

use super::checkpoint::Checkpoints;
use super::early_stop::{Rank, ValScore};
use super::fit::Fit;
use super::progress::{EpochRecord, Progress};
use super::validation::Validation;
use crate::backbone::Params;
use crate::error::{Result, WeightsError};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What became of a soup; part of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SoupRecord {
    /// The epochs that were tried, from the best down.
    pub tried: Vec<usize>,
    /// Those in the soup; the best alone when no other helped.
    pub epochs: Vec<usize>,
    /// Scores of the best epoch alone.
    pub best: ValScore,
    /// Scores of the soup.
    pub soup: ValScore,
}

impl SoupRecord {
    /// What came of it, in words.
    pub fn sentence(&self) -> String {
        let scores = |score: ValScore| format!("accuracy {:.1} %, loss {:.4}", 100.0 * score.accuracy, score.loss);
        let [best, others @ ..] = self.epochs.as_slice() else { return "nothing is mixed".into() };
        if others.is_empty() {
            return format!("no mean of epochs is as good as epoch {best} alone (val {})", scores(self.best));
        }
        let epochs: Vec<String> = self.epochs.iter().map(usize::to_string).collect();
        let (epochs, soup, alone) = (epochs.join(", "), scores(self.soup), scores(self.best));
        format!("the mean of epochs {epochs} is kept: val {soup}; epoch {best} alone: {alone}")
    }
}

type Tensors = BTreeMap<String, Tensor>;

impl Fit<'_> {
    /// Saves the parameters when the epoch that was just recorded is an ingredient, and removes what no longer is one.
    pub(super) fn keep_ingredient(&self, progress: &Progress) -> Result<()> {
        if self.settings.soup == 0 {
            return Ok(());
        }
        let best = self.ingredients(progress);
        if best.contains(&progress.epoch) {
            let name = checkpoint_name(progress.epoch);
            self.checkpoints.save(&name, progress.step, &self.trainer.model.saved()?, None, progress)?;
        }
        let outdated = progress.history.iter().map(|record| record.epoch).filter(|epoch| !best.contains(epoch));
        outdated.into_iter().try_for_each(|epoch| self.checkpoints.remove(&checkpoint_name(epoch)))
    }

    /// The best epochs, as many as a soup may have.
    fn ingredients(&self, progress: &Progress) -> Vec<usize> {
        let mut epochs = ranking(&progress.history);
        epochs.truncate(self.settings.soup);
        epochs
    }

    /// Makes the soup of a finished training and saves it as `best`, unless the best epoch alone is as good. The
    /// parameters of the model are the last that were tried. None when there are not two epochs to mix.
    ///
    /// # Errors
    /// I/O errors of checkpoints, data errors of files that changed under way.
    pub fn soup(&self, progress: &Progress) -> Result<Option<SoupRecord>> {
        let tried = self.ingredients(progress);
        let [first, rest @ ..] = tried.as_slice() else { return Ok(None) };
        let Some(best) = progress.history.iter().find(|record| record.epoch == *first).and_then(val_score) else {
            return Ok(None);
        };
        if rest.is_empty() {
            return Ok(None);
        }
        let params = &self.trainer.model.params;
        let (mut epochs, mut soup) = (vec![*first], best);
        let mut sum = self.load_ingredient(*first)?;
        for &epoch in rest {
            let candidate = add(&sum, &self.load_ingredient(epoch)?)?;
            set_to_mean(params, &candidate, epochs.len() + 1)?;
            let Some(Validation { scores, .. }) = self.validate()? else { return Ok(None) };
            if scores.rank() >= soup.rank() {
                (sum, soup) = (candidate, scores);
                epochs.push(epoch);
            }
        }
        if epochs.len() > 1 {
            set_to_mean(params, &sum, epochs.len())?;
            self.checkpoints.save("best", progress.step, &self.trainer.model.saved()?, None, progress)?;
        }
        Ok(Some(SoupRecord { tried, epochs, best, soup }))
    }

    fn load_ingredient(&self, epoch: usize) -> Result<Tensors> {
        let name = checkpoint_name(epoch);
        let saved = self.checkpoints.load::<Progress>(&name)?.map(|saved| saved.params);
        saved.ok_or_else(|| WeightsError::invalid(self.checkpoints.path(&name), "is missing").into())
    }
}

/// Removes the ingredients of a soup that is made, if there was one.
///
/// # Errors
/// When the system refuses.
pub fn clear_ingredients(checkpoints: &Checkpoints, soup: Option<&SoupRecord>) -> Result<()> {
    soup.iter().flat_map(|soup| &soup.tried).try_for_each(|&epoch| checkpoints.remove(&checkpoint_name(epoch)))
}

fn checkpoint_name(epoch: usize) -> String {
    format!("epoch-{epoch}")
}

fn val_score(record: &EpochRecord) -> Option<ValScore> {
    Some(ValScore { score: record.val_score?, loss: record.val_loss?, accuracy: record.val_accuracy? })
}

fn tensor<'a>(epochs: &'a Tensors, name: &str) -> candle_core::Result<&'a Tensor> {
    epochs.get(name).ok_or_else(|| candle_core::Error::msg(format!("an epoch was saved without {name:?}")))
}

fn add(sum: &Tensors, other: &Tensors) -> candle_core::Result<Tensors> {
    sum.iter().map(|(name, value)| Ok((name.clone(), (value + tensor(other, name)?)?))).collect()
}

fn set_to_mean(params: &Params, sum: &Tensors, n: usize) -> candle_core::Result<()> {
    params.assign(|name, _| (tensor(sum, name)? / n as f64).map(Some))
}

/// The epochs that were validated, best first, the earlier of equal ones first.
fn ranking(history: &[EpochRecord]) -> Vec<usize> {
    let scored = |record: &EpochRecord| Some((record.epoch, val_score(record)?.rank()?));
    let mut epochs: Vec<(usize, Rank)> = history.iter().filter_map(scored).collect();
    // No rank holds a NaN.
    epochs.sort_by(|(_, a), (_, b)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    epochs.into_iter().map(|(epoch, _)| epoch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_ranking_is_the_best() {
        let scores = [(0.9, 0.5), (0.8, 0.7), (0.7, 0.7), (0.7, 0.7), (0.1, 0.2)];
        let rank = |score: fn(f64, f64) -> f64| {
            let record = |(epoch, (loss, accuracy))| EpochRecord {
                epoch,
                val_loss: Some(loss).filter(|_| epoch != 4),
                val_accuracy: Some(accuracy),
                val_score: Some(score(loss, accuracy)),
                ..EpochRecord::default()
            };
            ranking(&(1..).zip(scores).map(record).collect::<Vec<_>>())
        };
        assert_eq!(rank(|_, accuracy| accuracy), [3, 2, 1, 5]);
        assert_eq!(rank(|loss, _| -loss), [5, 3, 2, 1]);
    }
}
