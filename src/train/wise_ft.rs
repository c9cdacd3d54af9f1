//! The mean in weight space of a model before and after fine-tuning (WiSE-FT, Wortsman et al. 2022).
//!
//! What fine-tuning costs on other images than those it saw, the mean often gives back; the share of the fine-tuned weights
//! is given or chosen on the validation images.

use super::early_stop::{Rank, ValScore};
use crate::backbone::{ParamName, Params, Part};
use crate::config::FoundOrGiven;
use crate::error::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps of the share from 0 to 1 when it is chosen, as in the paper.
const STEPS: usize = 10;

/// What became of the mean; part of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WiseFtRecord {
    /// The share of the fine-tuned weights that is kept; the rest is the start.
    pub alpha: f64,
    /// The scores along the line from the start (0) to the fine-tuned weights (1); empty without validation images.
    pub curve: Vec<MeanScore>,
}

/// One mean's scores on the validation images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanScore {
    /// The share of the fine-tuned weights.
    pub alpha: f64,
    /// Mean cross-entropy.
    pub val_loss: f64,
    /// Share of right answers.
    pub val_accuracy: f64,
    /// By `early_stop.metric`, higher is better.
    #[serde(default)]
    pub val_score: f64,
}

impl MeanScore {
    fn rank(&self) -> Option<Rank> {
        ValScore { score: self.val_score, loss: self.val_loss, accuracy: self.val_accuracy }.rank()
    }
}

impl WiseFtRecord {
    /// What came of it, in words.
    pub fn sentence(&self) -> String {
        let at = |wanted: f64| self.curve.iter().find(|point| (point.alpha - wanted).abs() < 1e-9);
        let percent = |point: &MeanScore| format!("{:.1} %", 100.0 * point.val_accuracy);
        let mix = format!("{:.2} of the fine-tuned weights, {:.2} of the start", self.alpha, 1.0 - self.alpha);
        match (at(0.0), at(self.alpha), at(1.0)) {
            (Some(start), Some(kept), Some(tuned)) => {
                format!("{mix}: val {}; start {}, fine-tuned {}", percent(kept), percent(start), percent(tuned))
            }
            _ => mix,
        }
    }
}

/// The line in weight space from a model before fine-tuning to the same one after it.
pub struct WeightInterpolation<'a> {
    /// The trainable parameters before.
    pub start: &'a BTreeMap<String, Tensor>,
    /// The weights after training.
    pub end: &'a BTreeMap<String, Tensor>,
}

impl WeightInterpolation<'_> {
    /// Leaves `params` at the mean that is given or scores best, and says how others score: all tenths when it is chosen,
    /// both ends when it is given. Equal scores are decided as between epochs, and then for the start. `validate` scores
    /// the parameters as they are, or gives none without validation images.
    ///
    /// # Errors
    /// Those of `validate`; when an end lacks a trainable parameter.
    pub fn settle(
        &self,
        params: &Params,
        wise_ft: FoundOrGiven,
        validate: &mut dyn FnMut() -> Result<Option<ValScore>>,
    ) -> Result<WiseFtRecord> {
        let alphas = match wise_ft {
            FoundOrGiven::Found => (0..=STEPS).map(|i| i as f64 / STEPS as f64).collect(),
            FoundOrGiven::Given(1.0) => vec![0.0, 1.0],
            FoundOrGiven::Given(share) => vec![0.0, share, 1.0],
        };
        let mut curve: Vec<MeanScore> = Vec::new();
        for alpha in alphas {
            self.set(params, alpha)?;
            let Some(ValScore { score, loss, accuracy }) = validate()? else { break };
            curve.push(MeanScore { alpha, val_loss: loss, val_accuracy: accuracy, val_score: score });
        }
        let alpha = match wise_ft {
            FoundOrGiven::Found => best(&curve),
            FoundOrGiven::Given(share) => share,
        };
        self.set(params, alpha)?;
        Ok(WiseFtRecord { alpha, curve })
    }

    /// (1 - α) start + α end for every trainable parameter. Of adapters only the factor that starts from zero is mixed: so
    /// the mean is that of the weights they are merged into, as their product grows with α and not with its square.
    fn set(&self, params: &Params, alpha: f64) -> candle_core::Result<()> {
        params.assign(|name, now| {
            let (Some(start), Some(end)) = (self.start.get(name), self.end.get(name)) else {
                candle_core::bail!("an end of the line has no {name:?}")
            };
            if name.parse::<ParamName>().is_ok_and(|name| name.part == Part::LoraA) {
                return Ok(Some(end.clone()));
            }
            let (start, end) = (start.to_device(now.device())?, end.to_device(now.device())?);
            ((start * (1.0 - alpha))? + (end * alpha)?).map(Some)
        })
    }
}

/// The share of the best mixture, the smallest of equal ones; 1 when none has a score.
fn best(curve: &[MeanScore]) -> f64 {
    let scored = curve.iter().filter_map(|point| Some((point, point.rank()?)));
    let better = |best: Option<(f64, Rank)>, (point, rank): (&MeanScore, Rank)| match best {
        Some((_, highest)) if rank <= highest => best,
        _ => Some((point.alpha, rank)),
    };
    scored.fold(None, better).map_or(1.0, |(alpha, _)| alpha)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn at(values: [f32; 2]) -> BTreeMap<String, Tensor> {
        BTreeMap::from([("head.bias".to_owned(), Tensor::new(&values, &Device::Cpu).unwrap())])
    }

    fn params() -> Params {
        Params::from_iter(at([9.0, 9.0])).train_where(|_| true).unwrap()
    }

    fn values(params: &Params) -> Vec<f32> {
        params.tensor("head.bias").unwrap().to_vec1().unwrap()
    }

    /// Settles between 0.3 and 1.7, where the accuracy is `accuracy` of the first value and the loss that value.
    fn settle(wise_ft: FoundOrGiven, accuracy: impl Fn(f32) -> Option<f64>) -> (WiseFtRecord, Vec<f32>) {
        let (params, start, end) = (params(), at([0.3, 1.0]), at([1.7, 1.0]));
        let mut validate = || {
            let first = values(&params)[0];
            Ok(accuracy(first).map(|accuracy| ValScore { score: accuracy, loss: f64::from(first), accuracy }))
        };
        let line = WeightInterpolation { start: &start, end: &end };
        let record = line.settle(&params, wise_ft, &mut validate).unwrap();
        (record, values(&params))
    }

    #[test]
    fn the_best_share_is_kept_and_equal_ones_are_decided_by_the_loss() {
        let (record, kept) = settle(FoundOrGiven::Found, |x| Some(if (0.9..=1.3).contains(&x) { 0.8 } else { 0.5 }));
        assert_eq!((record.curve.len(), record.alpha), (11, 0.5));
        assert!((kept[0] - 1.0).abs() < 1e-6 && kept[1] == 1.0, "{kept:?}");
        assert!(record.sentence().contains("val 80.0 %; start 50.0 %, fine-tuned 50.0 %"), "{}", record.sentence());
    }

    #[test]
    fn the_ends_are_exact() {
        for (bias, alpha, expected) in [(-1.0, 0.0, 0.3), (1.0, 1.0, 1.7)] {
            let (record, kept) = settle(FoundOrGiven::Found, |x| Some(bias * f64::from(x)));
            assert_eq!((record.alpha, kept[0]), (alpha, expected));
        }
        assert_eq!(settle(FoundOrGiven::Given(1.0), |_| Some(0.5)).1, [1.7, 1.0]);
    }

    #[test]
    fn a_given_share_needs_no_validation_and_no_number_never_wins() {
        let (record, kept) = settle(FoundOrGiven::Given(0.25), |_| None);
        assert!((kept[0] - 0.65).abs() < 1e-6 && record.curve.is_empty() && record.alpha == 0.25);
        assert!(record.sentence().starts_with("0.25 of the fine-tuned weights"));
        assert_eq!(settle(FoundOrGiven::Given(0.25), |_| Some(0.5)).0.curve.len(), 3);
        assert_eq!(settle(FoundOrGiven::Found, |x| Some(if x < 1.0 { f64::NAN } else { 0.1 })).0.alpha, 0.5);
    }

    #[test]
    fn adapters_grow_with_the_share() {
        let tensor = |value: f32| Tensor::new(&[[value]], &Device::Cpu).unwrap();
        let of = |a: f32, b: f32| {
            BTreeMap::from([
                ("blocks.0.attn.q.lora_a".to_owned(), tensor(a)),
                ("blocks.0.attn.q.lora_b".to_owned(), tensor(b)),
            ])
        };
        let params = Params::from_iter(of(0.0, 0.0)).train_where(|_| true).unwrap();
        let (start, end) = (of(5.0, 0.0), of(3.0, 2.0));
        for (alpha, expected) in [(0.0, 0.0), (0.25, 1.5), (1.0, 6.0)] {
            WeightInterpolation { start: &start, end: &end }.set(&params, alpha).unwrap();
            let value = |name: &str| params.tensor(name).unwrap().to_vec2::<f32>().unwrap()[0][0];
            assert_eq!(value("blocks.0.attn.q.lora_a") * value("blocks.0.attn.q.lora_b"), expected);
        }
    }

    #[test]
    fn an_end_must_have_every_parameter() {
        let (start, end) = (at([0.0, 0.0]), BTreeMap::new());
        assert!(
            WeightInterpolation { start: &start, end: &end }
                .set(&params(), 0.5)
                .unwrap_err()
                .to_string()
                .contains("head.bias")
        );
    }
}
