//! What a strategy costs: the work of its runs, which decides which one is cheapest, and the time that they took.

use super::Finished;
use statrs::statistics::{Data, Median};

/// The costs of a run of a strategy. Times are wall times in seconds: the median, since a run may have waited for others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Mean floating-point operations; none when a run does not say.
    pub operations: Option<f64>,
    /// Time as measured, with whatever the cache had by then.
    pub measured: f64,
    /// Time as if each run had computed all of its features itself.
    pub alone: f64,
}

/// The costs of all strategies; times are NaN for one without runs.
///
/// Operations depend only on the model, the images and the steps; times also depend on what else the machine has to do.
///
/// The first run pays for features that later ones find. So the time that went into features is taken out of each run, and
/// what all its features cost is put in: at the price an image that the strategy's own runs paid, or, when they found
/// everything, at the highest price that another strategy paid. Where nobody paid (the cache was full from the start)
/// times stay as measured.
pub fn costs(strategies: &[&[Finished]]) -> Vec<Cost> {
    let prices: Vec<Option<f64>> = strategies.iter().map(|runs| price(runs)).collect();
    let highest = prices.iter().flatten().copied().reduce(f64::max);
    let cost = |(runs, own): (&&[Finished], &Option<f64>)| {
        let of_runs = |value: &dyn Fn(&Finished) -> f64| Data::new(runs.iter().map(value).collect::<Vec<_>>()).median();
        let operations: Option<f64> = runs.iter().map(|run| run.record.operations).sum();
        let operations = operations.filter(|_| !runs.is_empty()).map(|all| all / runs.len() as f64);
        let measured = of_runs(&|run| run.record.wall_seconds);
        let alone = of_runs(&|run| match (run.record.cache, own.or(highest)) {
            (Some(cache), Some(price)) => {
                run.record.wall_seconds - cache.seconds + price * (cache.hits + cache.misses) as f64
            }
            _ => run.record.wall_seconds,
        });
        Cost { operations, measured, alone }
    };
    strategies.iter().zip(&prices).map(cost).collect()
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

    fn times(cost: Cost) -> (f64, f64) {
        (cost.measured, cost.alone)
    }

    #[test]
    fn operations_are_known_when_all_runs_say_them() {
        let of = |operations: &[Option<f64>]| {
            let told = |&operations: &Option<f64>| {
                let mut run = run(1.0, None);
                run.record.operations = operations;
                run
            };
            costs(&[&operations.iter().map(told).collect::<Vec<_>>()])[0].operations
        };
        assert_eq!([of(&[Some(1e9), Some(2e9)]), of(&[Some(1e9), None]), of(&[])], [Some(1.5e9), None, None]);
    }

    #[test]
    fn who_comes_first_makes_no_difference() {
        let first = [run(12.0, Some((0, 100, 10.0))), run(2.0, Some((100, 0, 0.0)))];
        let found = [run(3.0, Some((100, 0, 0.0)))];
        let without = [run(40.0, None)];
        let costs: [Cost; 3] = costs(&[&first, &found, &without]).try_into().unwrap();
        assert_eq!(costs.map(times), [(7.0, 12.0), (3.0, 13.0), (40.0, 40.0)]);
    }

    #[test]
    fn a_run_that_had_to_wait_does_not_count_for_more() {
        let runs = [run(1.0, None), run(24.0, None), run(2.0, None)];
        assert_eq!(times(costs(&[&runs])[0]), (2.0, 2.0));
        assert!(costs(&[&[]])[0].measured.is_nan());
    }

    #[test]
    fn a_cache_that_was_full_tells_nothing() {
        let found = [run(3.0, Some((100, 0, 0.0)))];
        assert_eq!(times(costs(&[&found])[0]), (3.0, 3.0));
    }
}
