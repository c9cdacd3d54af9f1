//! The time that a strategy would have taken alone, although its runs shared a feature cache with others.

use super::Finished;
use statrs::statistics::{Data, Median};

/// Median wall time in seconds of the runs of a strategy: the median, since a run may have waited for others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// As measured, with whatever the cache had by then.
    pub measured: f64,
    /// As if each run had computed all of its features itself.
    pub alone: f64,
}

/// The costs of all strategies; NaN for one without runs.
///
/// The first run pays for features that later ones find. So the time that went into features is taken out of each run, and
/// what all its features cost is put in: at the price an image that the strategy's own runs paid, or, when they found
/// everything, at the highest price that another strategy paid. Where nobody paid (the cache was full from the start)
/// times stay as measured.
pub fn costs(strategies: &[&[Finished]]) -> Vec<Cost> {
    let prices: Vec<Option<f64>> = strategies.iter().map(|runs| price(runs)).collect();
    let highest = prices.iter().flatten().copied().reduce(f64::max);
    let cost = |(runs, own): (&&[Finished], &Option<f64>)| {
        let of_runs = |value: &dyn Fn(&Finished) -> f64| median(runs.iter().map(value).collect());
        let measured = of_runs(&|run| run.record.wall_seconds);
        let alone = of_runs(&|run| match (run.record.cache, own.or(highest)) {
            (Some(cache), Some(price)) => {
                run.record.wall_seconds - cache.seconds + price * (cache.hits + cache.misses) as f64
            }
            _ => run.record.wall_seconds,
        });
        Cost { measured, alone }
    };
    strategies.iter().zip(&prices).map(cost).collect()
}

/// NaN without values.
fn median(values: Vec<f64>) -> f64 {
    Data::new(values).median()
}

/// Seconds that an image's features took.
fn price(runs: &[Finished]) -> Option<f64> {
    let paid = runs.iter().filter_map(|run| run.record.cache);
    let (seconds, images) = paid.fold((0.0, 0), |sum, cache| (sum.0 + cache.seconds, sum.1 + cache.misses));
    (images > 0).then(|| seconds / images as f64)
}

#[cfg(test)]
mod tests {
    use super::super::tests::finished;
    use super::*;
    use crate::cache::CacheUse;

    fn run(wall_seconds: f64, cache: Option<(usize, usize, f64)>) -> Finished {
        let mut run = finished("x");
        run.record.wall_seconds = wall_seconds;
        run.record.cache = cache.map(|(hits, misses, seconds)| CacheUse { hits, misses, seconds });
        run
    }

    #[test]
    fn who_comes_first_makes_no_difference() {
        let first = [run(12.0, Some((0, 100, 10.0))), run(2.0, Some((100, 0, 0.0)))];
        let found = [run(3.0, Some((100, 0, 0.0)))];
        let without = [run(40.0, None)];
        let costs = costs(&[&first, &found, &without]);
        assert_eq!(costs[0], Cost { measured: 7.0, alone: 12.0 });
        assert_eq!(costs[1], Cost { measured: 3.0, alone: 13.0 });
        assert_eq!(costs[2], Cost { measured: 40.0, alone: 40.0 });
    }

    #[test]
    fn a_run_that_had_to_wait_does_not_count_for_more() {
        let runs = [run(1.0, None), run(24.0, None), run(2.0, None)];
        assert_eq!(costs(&[&runs]), [Cost { measured: 2.0, alone: 2.0 }]);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_cache_that_was_full_tells_nothing() {
        let found = [run(3.0, Some((100, 0, 0.0)))];
        assert_eq!(costs(&[&found]), [Cost { measured: 3.0, alone: 3.0 }]);
    }
}
