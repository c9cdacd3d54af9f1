//! Worker threads that each run single-threaded kernels on a share of the work.
//!
//! Sharding the batch beats threading each operation: every operation becomes parallel, and the activations of a small
//! shard stay in cache. Results come back in the order of the shards, so sums over them are deterministic for a number
//! of workers. On a GPU there is one worker, the calling thread.

use candle_core::{Device, Result};
use rayon::prelude::*;

/// A pool of workers, or the calling thread alone.
pub struct Workers {
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl Workers {
    /// `threads` workers on the CPU (0: one per core), one on other devices.
    ///
    /// # Errors
    /// When the system refuses to start threads.
    pub fn new(threads: usize, device: &Device) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = match (device.is_cpu(), threads) {
            (false, _) => 1,
            (true, 0) => cores,
            (true, threads) => threads,
        };
        let pool = (count > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(count).build())
            .transpose()
            .map_err(candle_core::Error::wrap)?;
        Ok(Self { pool, count })
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Applies `work` to every item, in parallel, results in the order of the items.
    ///
    /// # Errors
    /// The first error by order of the items.
    pub fn map<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
        match &self.pool {
            Some(pool) => {
                let results: Vec<Result<R>> =
                    pool.install(|| items.into_par_iter().with_max_len(1).map(&work).collect());
                results.into_iter().collect()
            }
            None => items.into_iter().map(work).collect(),
        }
    }
}

/// Cuts `0..n` into `parts` contiguous ranges whose lengths differ by at most one.
pub fn cut(n: usize, parts: usize) -> Vec<std::ops::Range<usize>> {
    (0..parts).map(|part| part * n / parts..(part + 1) * n / parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn results_keep_the_order_and_the_first_error_wins() {
        let workers = Workers::new(3, &Device::Cpu).unwrap();
        assert_eq!(workers.map((0..50).collect(), |i| Ok(i * 2)).unwrap(), (0..100).step_by(2).collect::<Vec<_>>());
        let error = workers.map(vec![1, 2, 3], |i| if i > 1 { candle_core::bail!("item {i}") } else { Ok(i) });
        assert!(error.unwrap_err().to_string().contains("item 2"));
    }

    proptest! {
        #[test]
        fn cuts_cover_everything_evenly(n in 0usize..500, parts in 1usize..9) {
            let parts = parts.min(n);
            let ranges = cut(n, parts);
            prop_assert_eq!(ranges.iter().map(ExactSizeIterator::len).sum::<usize>(), n);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            let lengths: Vec<usize> = ranges.iter().map(ExactSizeIterator::len).collect();
            if let (Some(max), Some(min)) = (lengths.iter().max(), lengths.iter().min()) {
                prop_assert!(max - min <= 1);
            }
        }
    }
}
