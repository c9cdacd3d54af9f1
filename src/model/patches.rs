//! `PatchCore` as a head: how far the patches of an image are from those of sound parts, as two logits.

use crate::backbone::Params;
use crate::data::loader::Batch;
use crate::data::transform::Bag;
use crate::error::Error;
use crate::features::{Extractor, TiledImages};
use crate::linalg::Matrix;
use crate::probe::{MemoryBank, Strangeness};
use candle_core::{Result, Tensor};

/// The patches of sound parts (n, w).
const BANK: &str = "patchcore.bank";
/// The class of defects; then, once they are chosen, the threshold and the spread of the logarithms of sound parts' scores.
const RULE: &str = "patchcore.rule";

/// From the score of an image to its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRule {
    /// A part is defective from this score on.
    pub threshold: f32,
    /// The standard deviation of the logarithm of sound parts' scores.
    pub spread: f32,
}

impl ScoreRule {
    /// The logit of a defect against that of a sound part, 0 at the threshold: how many times the spread the score's
    /// logarithm lies above the threshold's.
    pub fn logit(self, score: f32) -> f32 {
        let ln = |score: f32| f64::from(score.clamp(f32::MIN_POSITIVE, f32::INFINITY)).ln();
        ((ln(score) - ln(self.threshold)) / f64::from(self.spread)) as f32
    }

    /// The score of that logit.
    pub fn score(self, logit: f64) -> f64 {
        f64::from(self.threshold) * (logit * f64::from(self.spread)).exp()
    }
}

/// Patches of sound parts, and what a score means.
#[derive(Debug)]
pub struct PatchHead {
    bank: MemoryBank,
    defect: usize,
    /// None while it is still to be chosen: the score itself is the logit then.
    pub rule: Option<ScoreRule>,
}

impl PatchHead {
    /// The head over `params`.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn new(params: &Params) -> Result<Self> {
        let bank = params.tensor(BANK)?;
        let rule = params.tensor(RULE)?.to_vec1::<f32>()?;
        let (defect, rule) = match *rule.as_slice() {
            [defect] => (defect, None),
            [defect, threshold, spread] => (defect, Some(ScoreRule { threshold, spread })),
            _ => candle_core::bail!("{RULE} has {} values, expected 1 or 3", rule.len()),
        };
        let width = bank.dim(1)?;
        Ok(Self { bank: MemoryBank::new(bank.flatten_all()?.to_vec1()?, width), defect: defect as usize, rule })
    }

    /// The parameters of a head with a bank (n, w), the class of defects among the two, and the rule if it is chosen. None of
    /// them is trainable.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn params(bank: Tensor, defect: usize, rule: Option<ScoreRule>) -> Result<Params> {
        let chosen = rule.map(|ScoreRule { threshold, spread }| [threshold, spread]);
        let values: Vec<f32> = std::iter::once(defect as f32).chain(chosen.into_iter().flatten()).collect();
        Ok(Params::from_iter([(RULE, Tensor::new(values, bank.device())?), (BANK, bank)]))
    }

    /// Which of the two classes is that of defects.
    pub fn defect(&self) -> usize {
        self.defect
    }

    /// How far images are from sound parts, by their patches (B, N, w), row-major.
    ///
    /// # Errors
    /// When the patches have another width.
    pub fn compare(&self, patches: &[f32], images: usize) -> crate::error::Result<Vec<Strangeness>> {
        let width = self.bank.patches().cols();
        let each = (patches.len() / images.max(1)).max(1);
        patches.chunks_exact(each).map(|image| self.bank.compare(Matrix::new(image, width))).collect()
    }

    /// How far an image that is cut into tiles is from sound parts, and its farthest patch (w), which alone has the image's
    /// score. The patches of a few tiles are in memory at a time.
    ///
    /// # Errors
    /// When the patches have another width, or the device fails.
    pub fn compare_bag(&self, images: &TiledImages<'_>, bag: &Bag) -> crate::error::Result<(Strangeness, Vec<f32>)> {
        let parts = images.in_parts(bag, |_, patches| {
            let patches = Matrix::new(patches, self.bank.patches().cols());
            let found = self.bank.compare(patches)?;
            let farthest = patches.row(found.farthest).to_vec();
            Ok((found, farthest))
        })?;
        let joined = parts.into_iter().reduce(|(mut whole, kept), (part, farthest)| {
            let before = whole.patches.len();
            let kept = if whole.add(part) >= before { farthest } else { kept };
            (whole, kept)
        });
        joined.ok_or_else(|| Error::usage("there are no tiles to compare"))
    }

    /// The same by standardised pixels, whose patches an extractor makes.
    ///
    /// # Errors
    /// When the device fails.
    pub fn compare_pixels(
        &self,
        extractor: &Extractor,
        pixels: &[f32],
        images: usize,
    ) -> crate::error::Result<Vec<Strangeness>> {
        let batch = Batch { inputs: pixels.to_vec(), labels: vec![0; images], ..Batch::default() };
        self.compare(&extractor.rows(&batch.into())?, images)
    }

    /// A part is defective from this score on.
    pub fn threshold(&self) -> f32 {
        self.rule.map_or(f32::MAX, |rule| rule.threshold)
    }

    /// patches (B, N, w) to logits (B, 2), on the CPU whatever the device: 0 for a sound part.
    ///
    /// # Errors
    /// When the patches have another width.
    pub fn forward(&self, patches: &Tensor) -> Result<Tensor> {
        let images = patches.dim(0)?;
        let values = patches.flatten_all()?.to_vec1::<f32>()?;
        let found = self.compare(&values, images).map_err(candle_core::Error::wrap)?;
        let logits = found.iter().flat_map(|found| {
            let mut pair = [0f32; 2];
            pair[self.defect.min(1)] = self.rule.map_or(found.score, |rule| rule.logit(found.score));
            pair
        });
        Tensor::from_iter(logits, patches.device())?.reshape((images, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_threshold_is_where_both_are_equally_likely() {
        let bank = || Tensor::new(&[[0f32], [1.0]], &Device::Cpu).unwrap();
        let patches = Tensor::new(&[[[0f32], [0.5]], [[4.0], [1.0]]], &Device::Cpu).unwrap();
        let raw = PatchHead::new(&PatchHead::params(bank(), 0, None).unwrap()).unwrap();
        let scores = raw.forward(&patches).unwrap().to_vec2::<f32>().unwrap();
        assert!(scores[1][0] > scores[0][0] && scores.iter().all(|pair| pair[1] == 0.0), "{scores:?}");
        let rule = ScoreRule { threshold: scores[1][0], spread: 0.5 };
        let head = PatchHead::new(&PatchHead::params(bank(), 0, Some(rule)).unwrap()).unwrap();
        let logits = head.forward(&patches).unwrap().to_vec2::<f32>().unwrap();
        assert!(logits[1][0].abs() < 1e-6 && logits[0][0] < 0.0, "{logits:?}");
        assert!((rule.score(f64::from(logits[0][0])) - f64::from(scores[0][0])).abs() < 1e-6);
        assert!(PatchHead::new(&Params::default()).is_err());
    }
}
