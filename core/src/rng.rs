//! Random numbers keyed by what they are for.
//!
//! Every draw in the program comes from a stream named by (seed, purpose, coordinates): shuffles by epoch,
//! augmentations by (epoch, sample), drop path by (step, sample, block). Streams do not depend on the order in
//! which they are read, so threads change nothing and a resumed run needs no replay.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is for. The numbers are part of the reproducibility contract: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Drawing validation and test samples.
    Split = 1,
    /// The order of the training samples in an epoch.
    Shuffle = 2,
    /// Random augmentations of one sample in one epoch.
    Augment = 3,
    /// Fresh parameters such as the classification head.
    Init = 4,
    /// Which samples skip a residual branch.
    DropPath = 5,
    /// Which activations are zeroed.
    Dropout = 6,
    /// Bootstrap resamples of an interval.
    Bootstrap = 7,
    /// Dealing samples to the folds of a cross-validation.
    Folds = 8,
    /// Where the points of an embedding start.
    Embedding = 9,
    /// Which inputs of a low-rank adapter are zeroed.
    LoraDropout = 10,
    /// The order in which a balancing sampler takes the samples of a class.
    Sampler = 11,
    /// How the images of a step are mixed.
    Mix = 12,
    /// Dealing samples to folds, each of which is the test set in turn.
    TestFolds = 16,
    /// Which images of a class are kept when it may have only so many.
    ClassCap = 21,
    /// Flaws added to a sample to measure a model's robustness.
    Corruption = 20,
    /// The projection and the first point of a coreset.
    Coreset = 22,
    /// Resamples of a ranking, whose metrics are not plain shares.
    RankingBootstrap = 13,
}

/// A deterministic stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `purpose` at `coordinates`, the same on every platform and version.
    pub fn new(seed: u64, purpose: Purpose, coordinates: &[u64]) -> Self {
        let mut key = [0u8; 32];
        let mut state = mix(seed ^ mix(purpose as u64));
        for &coordinate in coordinates {
            state = mix(state ^ mix(coordinate.wrapping_add(0x9E37_79B9_7F4A_7C15)));
        }
        for chunk in key.chunks_exact_mut(8) {
            state = mix(state.wrapping_add(0x9E37_79B9_7F4A_7C15));
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n, without bias (Lemire's multiplication with rejection); 0 when n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.0.next_u64()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// From the beta distribution with both parameters `alpha` > 0: the share of one of two gamma variates.
    pub fn symmetric_beta(&mut self, alpha: f64) -> f64 {
        let (a, b) = (self.log_gamma_variate(alpha), self.log_gamma_variate(alpha));
        1.0 / (1.0 + (b - a).exp())
    }

    /// The logarithm of a variate of the gamma distribution with shape `alpha` (Marsaglia and Tsang 2000). A logarithm,
    /// since the variates of a small shape are often too small for a float.
    fn log_gamma_variate(&mut self, alpha: f64) -> f64 {
        // A shape below 1 is that above it times a power of a uniform number.
        let (shape, log_factor) =
            if alpha < 1.0 { (alpha + 1.0, (1.0 - self.uniform()).ln() / alpha) } else { (alpha, 0.0) };
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return (d * v).ln() + log_factor;
            }
        }
    }

    /// Fisher-Yates shuffle in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_stable_and_distinct() {
        let first = |purpose, at: &[u64]| Stream::new(42, purpose, at).below(1 << 40);
        assert_eq!(first(Purpose::Shuffle, &[0]), first(Purpose::Shuffle, &[0]));
        let others = [first(Purpose::Shuffle, &[1]), first(Purpose::Augment, &[0]), first(Purpose::Shuffle, &[0, 0])];
        assert!(others.iter().all(|&other| other != first(Purpose::Shuffle, &[0])));
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut stream = Stream::new(1, Purpose::Split, &[]);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[stream.below(6) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }

    #[test]
    fn beta_has_its_mean_and_variance() {
        let mut stream = Stream::new(5, Purpose::Mix, &[]);
        for alpha in [0.001, 0.2, 1.0, 4.0] {
            let draws: Vec<f64> = (0..40_000).map(|_| stream.symmetric_beta(alpha)).collect();
            assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)), "{alpha}");
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!(
                (mean - 0.5).abs() < 0.01 && (variance / expected - 1.0).abs() < 0.04,
                "{alpha}: {mean} {variance}"
            );
        }
    }

    #[test]
    fn normal_has_unit_variance() {
        let mut stream = Stream::new(3, Purpose::Init, &[]);
        let draws: Vec<f64> = (0..50_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
