//! Worker threads that each run single-threaded kernels on a share of the work.
//!
//! Sharding the batch beats threading each operation: every operation becomes parallel, and the activations of a small
//! shard stay in cache. Results come back in the order of the shards, so sums over them are deterministic for a number
//! of workers. On a GPU there is one worker, the calling thread.

use crate::kernels::buffer;
use candle_core::{Device, Result};
use rayon::prelude::*;
use std::sync::Arc;

/// Images that one worker scores at a time.
const SCORING_SHARD: usize = 8;

/// Tokens in one worker's forward and backward pass: with more of them products get no faster, but more activations
/// are kept for the backward pass.
const TRAINING_TOKENS: usize = 800;

/// A pool of workers; clones share it.
#[derive(Clone)]
pub struct Workers {
    pool: Arc<rayon::ThreadPool>,
    count: usize,
    /// Whether a batch is best left whole.
    whole: bool,
}

impl Workers {
    /// `threads` workers on the CPU (0: one per core). On other devices one thread feeds the device, and the others do
    /// what is computed on the CPU all the same.
    ///
    /// # Errors
    /// When the system refuses to start threads.
    pub fn new(threads: usize, device: &Device) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores } else { threads };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(candle_core::Error::wrap)?;
        let whole = !device.is_cpu();
        Ok(Self { pool: Arc::new(pool), count: if whole { 1 } else { threads }, whole })
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How `n` images are cut for a forward pass without gradients: into shards that keep their activations in cache, at least
    /// one for each worker; whole on a GPU.
    pub fn scoring_shards(&self, n: usize) -> Vec<std::ops::Range<usize>> {
        let shards = if self.whole { n.min(1) } else { n.div_ceil(SCORING_SHARD).max(self.count.min(n)) };
        cut(n, shards)
    }

    /// Into how many parts, one after another, a training batch of `images` with `tokens` each is best cut; one on a GPU.
    pub fn rounds(&self, images: usize, tokens: usize) -> usize {
        let at_once = self.count * (TRAINING_TOKENS / tokens.max(1)).max(1);
        if self.whole { 1 } else { images.div_ceil(at_once) }
    }

    /// Frees the buffers that the workers keep for more of the same work, so that other work finds room.
    pub fn free_buffers(&self) {
        buffer::free();
        self.pool.broadcast(|_| buffer::free());
    }

    /// Runs something that uses rayon on these workers.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Applies `work` to every item, in parallel, results in the order of the items.
    ///
    /// # Errors
    /// The first error by order of the items.
    pub fn map<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
        if self.count == 1 {
            return items.into_iter().map(work).collect();
        }
        self.map_on_cpu(items, work).into_iter().collect()
    }

    /// Applies `work` that does not touch the device, such as decoding, to every item, results in the order of the items:
    /// on all threads, on a GPU too, where [`Workers::map`] has one worker.
    pub fn map_on_cpu<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
        self.pool.install(|| items.into_par_iter().with_max_len(1).map(&work).collect())
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

    #[test]
    fn work_on_the_cpu_uses_all_threads_on_a_gpu_too() {
        // As `Workers::new` makes them for a GPU.
        let workers = Workers { count: 1, whole: true, ..Workers::new(2, &Device::Cpu).unwrap() };
        let on = |i: usize| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            (i, std::thread::current().id())
        };
        let (items, threads): (Vec<_>, Vec<_>) = workers.map_on_cpu((0..6).collect(), on).into_iter().unzip();
        assert_eq!(items, (0..6).collect::<Vec<_>>());
        assert_eq!(threads.into_iter().collect::<std::collections::HashSet<_>>().len(), 2);
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
