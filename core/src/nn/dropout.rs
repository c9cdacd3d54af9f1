//! Dropout (Srivastava et al. 2014) and drop path (Huang et al. 2016) from keyed random numbers.
//!
//! The mask of a sample depends on (seed, step, sample, place) alone: not on the batch it came in, the shard, or the
//! thread. So accumulation, sharding and resumption change nothing.

use crate::rng::{Purpose, Stream};
use candle_core::{Result, Tensor};

/// Whether layers act at random.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Deterministic inference.
    Eval,
    /// Training with the given source of randomness.
    Train(&'a MaskKeys),
}

/// The keys of the random masks of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskKeys {
    /// The run's seed.
    pub seed: u64,
    /// The optimiser step.
    pub step: u64,
    /// The index of each sample of the shard in the data set.
    pub samples: Vec<u64>,
}

impl MaskKeys {
    fn stream(&self, purpose: Purpose, sample: u64, place: u64) -> Stream {
        Stream::new(self.seed, purpose, &[self.step, sample, place])
    }

    /// Refuses a shard of another number of samples.
    fn check(&self, samples: usize) -> Result<()> {
        let masks = self.samples.len();
        if samples != masks {
            candle_core::bail!("{masks} random masks for a shard of {samples} samples");
        }
        Ok(())
    }
}

/// What multiplies a residual branch in each sample: 0 with probability `rate`, else 1 / (1 - rate); none when nothing is
/// dropped. `place` tells branches apart.
///
/// # Errors
/// When the shard has another number of samples than `batch`.
pub fn drop_path_factors(batch: usize, rate: f64, place: u64, mode: Mode<'_>) -> Result<Option<Vec<f32>>> {
    let Mode::Train(noise) = mode else { return Ok(None) };
    if rate <= 0.0 {
        return Ok(None);
    }
    noise.check(batch)?;
    let factor = |&sample: &u64| {
        let dropped = noise.stream(Purpose::DropPath, sample, place).chance(rate);
        if dropped { 0.0 } else { (1.0 / (1.0 - rate)) as f32 }
    };
    Ok(Some(noise.samples.iter().map(factor).collect()))
}

/// Zeroes each feature of x (B, d) with probability `rate`, scaling survivors by 1 / (1 - rate).
///
/// # Errors
/// When the shard has another number of samples than `x`.
pub fn dropout(x: &Tensor, rate: f64, place: u64, mode: Mode<'_>) -> Result<Tensor> {
    let batch = x.dim(0)?;
    match mask((batch, x.elem_count() / batch.max(1)), rate, Purpose::Dropout, place, mode)? {
        Some(mask) => x.mul(&Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?),
        None => Ok(x.clone()),
    }
}

/// The factors of `values` values of each sample: 0 with probability `rate`, else 1 / (1 - rate); none when nothing is
/// dropped.
pub(super) fn mask(
    (batch, values): (usize, usize),
    rate: f64,
    purpose: Purpose,
    place: u64,
    mode: Mode<'_>,
) -> Result<Option<Vec<f32>>> {
    let Mode::Train(noise) = mode else { return Ok(None) };
    if rate <= 0.0 {
        return Ok(None);
    }
    noise.check(batch)?;
    let keep = (1.0 / (1.0 - rate)) as f32;
    let mut mask = Vec::with_capacity(batch * values);
    for &sample in &noise.samples {
        let mut stream = noise.stream(purpose, sample, place);
        mask.extend((0..values).map(|_| if stream.chance(rate) { 0.0 } else { keep }));
    }
    Ok(Some(mask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn noise(samples: std::ops::Range<u64>) -> MaskKeys {
        MaskKeys { seed: 7, step: 3, samples: samples.collect() }
    }

    #[test]
    fn eval_mode_and_rate_zero_change_nothing() {
        let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu).unwrap();
        let noise = noise(0..4);
        for (rate, mode) in [(0.5, Mode::Eval), (0.0, Mode::Train(&noise))] {
            assert_eq!(drop_path_factors(4, rate, 0, mode).unwrap(), None);
            let y = dropout(&x, rate, 0, mode).unwrap();
            assert_eq!(y.to_vec2::<f32>().unwrap(), x.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn masks_keep_the_mean_and_do_not_depend_on_the_batch() {
        let factors = |samples| {
            let noise = noise(samples);
            drop_path_factors(noise.samples.len(), 0.25, 1, Mode::Train(&noise)).unwrap().unwrap()
        };
        let all = factors(0..2000);
        let mean = all.iter().sum::<f32>() / 2000.0;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert!(all.iter().all(|&factor| factor == 0.0 || factor == 1.0 / 0.75));
        assert_eq!(factors(1000..2000), all[1000..]);
        assert!(drop_path_factors(3, 0.25, 1, Mode::Train(&noise(0..4))).is_err());
    }
}
