//! Dropout (Srivastava et al. 2014) and drop path (Huang et al. 2016) from keyed random numbers.
//!
//! The mask of a sample depends on (seed, step, sample, place) alone: not on the batch it came in, the shard, or the
//! thread. So accumulation, sharding and resumption change nothing.

use crate::kernels::{contiguous, fused, read, simd};
use crate::rng::{Purpose, Stream};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// Whether layers act at random.
#[derive(Debug, Clone, Copy)]
pub enum Mode<'a> {
    /// Deterministic inference.
    Eval,
    /// Training with the given source of randomness.
    Train(&'a Noise),
}

/// The keys of the random masks of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noise {
    /// The run's seed.
    pub seed: u64,
    /// The optimiser step.
    pub step: u64,
    /// The index of each sample of the shard in the data set.
    pub samples: Vec<u64>,
}

impl Noise {
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

/// Drops a residual branch x (B, …) for each sample with probability `rate`, scaling survivors by 1 / (1 - rate).
///
/// `place` tells branches apart.
///
/// # Errors
/// When the shard has another number of samples than `x`.
pub fn drop_path(x: &Tensor, rate: f64, place: u64, mode: Mode<'_>) -> Result<Tensor> {
    match drop_path_factors(x.dim(0)?, rate, place, mode)? {
        Some(factors) => scale_samples(x, factors),
        None => Ok(x.clone()),
    }
}

/// The factor of each sample of a residual branch in [`drop_path`]; none when nothing is dropped.
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
    match mask(x, rate, Purpose::Dropout, place, mode)? {
        Some(mask) => x.mul(&Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?),
        None => Ok(x.clone()),
    }
}

/// The factors of the values of x (B, …): 0 with probability `rate`, else 1 / (1 - rate); none when nothing is dropped.
pub(super) fn mask(x: &Tensor, rate: f64, purpose: Purpose, place: u64, mode: Mode<'_>) -> Result<Option<Vec<f32>>> {
    let Mode::Train(noise) = mode else { return Ok(None) };
    if rate <= 0.0 {
        return Ok(None);
    }
    noise.check(x.dim(0)?)?;
    let values = x.elem_count() / noise.samples.len().max(1);
    let keep = (1.0 / (1.0 - rate)) as f32;
    let mut mask = Vec::with_capacity(x.elem_count());
    for &sample in &noise.samples {
        let mut stream = noise.stream(purpose, sample, place);
        mask.extend((0..values).map(|_| if stream.chance(rate) { 0.0 } else { keep }));
    }
    Ok(Some(mask))
}

/// x (B, …) with each sample multiplied by its factor.
pub(super) fn scale_samples(x: &Tensor, scales: Vec<f32>) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(ScaleSamples(scales));
    }
    let mut shape = vec![1; x.rank()];
    shape[0] = scales.len();
    x.broadcast_mul(&Tensor::from_vec(scales, shape, x.device())?.to_dtype(x.dtype())?)
}

struct ScaleSamples(Vec<f32>);

impl ScaleSamples {
    fn scaled(&self, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        let sample = (y.len() / self.0.len().max(1)).max(1);
        simd(|| {
            for (values, scale) in y.chunks_exact_mut(sample).zip(&self.0) {
                values.iter_mut().for_each(|value| *value *= scale);
            }
        });
        y
    }
}

impl CustomOp1 for ScaleSamples {
    fn name(&self) -> &'static str {
        "drop_path"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.scaled(contiguous(storage, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = read(dy, |dy| Ok(self.scaled(dy)))?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    fn noise(samples: std::ops::Range<u64>) -> Noise {
        Noise { seed: 7, step: 3, samples: samples.collect() }
    }

    #[test]
    fn eval_mode_and_rate_zero_change_nothing() {
        let x = Tensor::ones((4, 3), DType::F32, &Device::Cpu).unwrap();
        let noise = noise(0..4);
        for (rate, mode) in [(0.5, Mode::Eval), (0.0, Mode::Train(&noise))] {
            let y = drop_path(&x, rate, 0, mode).unwrap();
            assert_eq!(y.to_vec2::<f32>().unwrap(), x.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn masks_keep_the_mean_and_do_not_depend_on_the_batch() {
        let x = Tensor::ones((2000, 2), DType::F32, &Device::Cpu).unwrap();
        let all = noise(0..2000);
        let y = drop_path(&x, 0.25, 1, Mode::Train(&all)).unwrap();
        let mean = y.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        let second_half = noise(1000..2000);
        let half = drop_path(&x.narrow(0, 0, 1000).unwrap(), 0.25, 1, Mode::Train(&second_half)).unwrap();
        let expected = y.narrow(0, 1000, 1000).unwrap();
        assert_eq!(half.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn a_dropped_sample_gets_no_gradient() {
        let x = Var::ones((64, 2), DType::F32, &Device::Cpu).unwrap();
        let noise = noise(0..64);
        let y = drop_path(&x, 0.5, 0, Mode::Train(&noise)).unwrap();
        let dx = y.sum_all().unwrap().backward().unwrap().get(&x).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(dx, y.to_vec2::<f32>().unwrap());
        assert!(dx.iter().any(|row| row[0] == 0.0) && dx.iter().any(|row| row[0] == 2.0));
    }
}
