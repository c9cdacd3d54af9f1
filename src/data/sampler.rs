//! Which training images an epoch sees, and in which order. Drawn from (seed, epoch) alone, so that a resumed run needs
//! no replay.

use super::transform::View;
use super::{Dataset, Split};
use crate::config::Sampler;
use crate::rng::{Purpose, Stream};

/// The training images of an epoch (from 0), as many as there are, in their order.
pub fn epoch_order(sampler: Sampler, seed: u64, epoch: u64, dataset: &Dataset) -> Vec<View> {
    let samples = dataset.indices(Split::Train);
    match sampler {
        Sampler::Shuffle => shuffled(seed, epoch, &samples),
        Sampler::Balanced => balanced(seed, epoch, &by_class(dataset, &samples)),
    }
}

/// Every sample once.
fn shuffled(seed: u64, epoch: u64, samples: &[usize]) -> Vec<View> {
    let mut order: Vec<View> = samples.iter().map(|&sample| View { epoch, sample: sample as u64 }).collect();
    Stream::new(seed, Purpose::Shuffle, &[epoch]).shuffle(&mut order);
    order
}

/// Every class equally often, whatever its size.
///
/// The draws of all epochs are one endless sequence that takes the classes in turn, and each class its own samples in turn,
/// in an order drawn once. So in every epoch, and in all epochs together, the numbers of draws of two classes differ by
/// at most one, and so do those of two samples of one class. Each pass over a class is a view of its own, so that a
/// sample drawn twice in an epoch is augmented in two ways.
fn balanced(seed: u64, epoch: u64, classes: &[Vec<usize>]) -> Vec<View> {
    let stream = |kind, coordinate| Stream::new(seed, Purpose::Sampler, &[kind, coordinate]);
    let mut turns = classes.to_vec();
    for (class, turn) in (0..).zip(&mut turns) {
        stream(0, class).shuffle(turn);
    }
    let draws = classes.iter().map(Vec::len).sum::<usize>() as u64;
    let mut order: Vec<View> = (epoch * draws..(epoch + 1) * draws)
        .map(|draw| {
            let (turn, number) = (&turns[(draw % turns.len() as u64) as usize], draw / turns.len() as u64);
            let size = turn.len() as u64;
            View { epoch: number / size, sample: turn[(number % size) as usize] as u64 }
        })
        .collect();
    stream(1, epoch).shuffle(&mut order);
    order
}

/// The samples of each class that has any.
fn by_class(dataset: &Dataset, samples: &[usize]) -> Vec<Vec<usize>> {
    let mut classes = vec![Vec::new(); dataset.classes.len()];
    samples.iter().for_each(|&sample| classes[dataset.samples[sample].label].push(sample));
    classes.retain(|members| !members.is_empty());
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Classes of the given sizes with samples numbered through.
    fn classes(sizes: &[usize]) -> Vec<Vec<usize>> {
        let starts = sizes.iter().scan(0, |sum, size| Some(std::mem::replace(sum, *sum + size)));
        starts.zip(sizes).map(|(start, size)| (start..start + size).collect()).collect()
    }

    fn counts(order: &[View]) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        order.iter().for_each(|view| *counts.entry(view.sample as usize).or_default() += 1);
        counts
    }

    fn spread(counts: impl Iterator<Item = usize> + Clone) -> usize {
        counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
    }

    #[test]
    fn a_rare_class_comes_as_often_as_a_common_one() {
        let classes = classes(&[2, 10]);
        let order = balanced(5, 3, &classes);
        let drawn = counts(&order);
        assert_eq!((drawn[&0], drawn[&1]), (3, 3));
        assert_eq!(drawn.len(), 2 + 6);
        let views: BTreeSet<(u64, u64)> = order.iter().map(|view| (view.epoch, view.sample)).collect();
        assert_eq!(views.len(), 12, "no view comes twice");
        assert_ne!(order, balanced(5, 4, &classes));
        assert_ne!(order, balanced(6, 3, &classes));
    }

    proptest! {
        #[test]
        fn a_shuffled_epoch_visits_every_sample_once(seed: u64, epoch in 0u64..1000, n in 0usize..200) {
            let samples: Vec<usize> = (0..n).map(|i| 3 * i).collect();
            let order = shuffled(seed, epoch, &samples);
            prop_assert_eq!(&order, &shuffled(seed, epoch, &samples));
            let mut visited: Vec<usize> = order.iter().map(|view| view.sample as usize).collect();
            visited.sort_unstable();
            prop_assert_eq!(visited, samples);
        }

        #[test]
        fn balanced_epochs_are_even_one_by_one_and_together(
            seed: u64,
            sizes in prop::collection::vec(1usize..12, 1..6),
            first in 0u64..50,
        ) {
            let classes = classes(&sizes);
            let epochs: Vec<Vec<View>> = (first..first + 4).map(|epoch| balanced(seed, epoch, &classes)).collect();
            let together = epochs.concat();
            for order in epochs.iter().chain([&together]) {
                let drawn = counts(order);
                let count = |sample: &usize| drawn.get(sample).copied().unwrap_or(0);
                prop_assert!(spread(classes.iter().map(|members| members.iter().map(count).sum())) <= 1);
                for members in &classes {
                    prop_assert!(spread(members.iter().map(count)) <= 1);
                }
            }
            prop_assert!(epochs.iter().all(|order| order.len() == sizes.iter().sum::<usize>()));
        }
    }
}
