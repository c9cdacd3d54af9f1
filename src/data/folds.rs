//! Folds of a cross-validation: classes spread evenly, groups kept whole.

use crate::error::{DataError, Error, Result};
use crate::linalg::tally;
use crate::rng::Stream;
use crate::system::shown::agree;
use std::collections::BTreeMap;

/// The fold of each sample, from 0 to `folds` − 1.
///
/// Samples that share a number in `groups` share a fold; without groups each sample is on its own. Groups are dealt out
/// in the random order of `stream`, the largest first, each to the fold where the classes come out most even (as scikit-learn's
/// `StratifiedGroupKFold`): the one that adds least to the sum over classes of squared shares.
///
/// # Errors
/// A usage error when there are fewer than 2 folds or more folds than groups; a data error that names a class which
/// lies in one fold only, so that it would be absent where that fold is held out.
pub fn assign_folds(
    labels: &[usize],
    names: &[String],
    groups: Option<&[usize]>,
    folds: usize,
    mut stream: Stream,
) -> Result<Vec<usize>> {
    let mut units = units(labels.len(), groups);
    if folds < 2 || folds > units.len() {
        let message = {
            let n = units.len();
            let units = agree(n, "image or group of images", "images or groups of images");
            format!("{n} {units} cannot be dealt to {folds} folds")
        };
        return Err(Error::usage_hint(message, "take at least 2 folds, and at most one for each group"));
    }
    stream.shuffle(&mut units);
    units.sort_by_key(|unit| std::cmp::Reverse(unit.len())); // stable: equals stay shuffled
    let mut deal = Deal::new(labels, names.len(), folds);
    let mut fold_of = vec![0; labels.len()];
    for unit in units {
        let fold = deal.best(&unit);
        deal.put(&unit, fold);
        unit.iter().for_each(|&i| fold_of[i] = fold);
    }
    deal.check(names)?;
    Ok(fold_of)
}

/// The number of each sample's group; samples without one are groups of their own. None when no sample has one.
pub fn group_numbers<'a>(names: impl Iterator<Item = Option<&'a str>> + Clone) -> Option<Vec<usize>> {
    names.clone().any(|name| name.is_some()).then(|| {
        let mut numbers = BTreeMap::new();
        let number = |(i, name): (usize, Option<&'a str>)| name.map_or(i, |name| *numbers.entry(name).or_insert(i));
        names.enumerate().map(number).collect()
    })
}

/// The members of each group, in the order of the groups' numbers.
pub(super) fn units(samples: usize, groups: Option<&[usize]>) -> Vec<Vec<usize>> {
    let Some(groups) = groups else { return (0..samples).map(|i| vec![i]).collect() };
    let mut units: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, &group) in groups.iter().enumerate().take(samples) {
        units.entry(group).or_default().push(i);
    }
    units.into_values().collect()
}

/// Folds being filled.
struct Deal<'a> {
    labels: &'a [usize],
    /// Samples of each class, over all folds.
    totals: Vec<usize>,
    /// Samples of each class in each fold.
    counts: Vec<Vec<usize>>,
}

impl<'a> Deal<'a> {
    fn new(labels: &'a [usize], classes: usize, folds: usize) -> Self {
        let totals = tally(labels.iter().copied(), classes);
        Self { labels, totals, counts: vec![vec![0; classes]; folds] }
    }

    /// The fold that suits a unit best; among equals the emptiest, then the first.
    fn best(&self, unit: &[usize]) -> usize {
        let mut of_class: BTreeMap<usize, usize> = BTreeMap::new();
        unit.iter().for_each(|&i| *of_class.entry(self.labels[i]).or_default() += 1);
        let cost = |counts: &[usize]| -> f64 {
            let term = |(&class, &more): (&usize, &usize)| {
                let (now, total) = (counts[class] as f64, self.totals[class] as f64);
                (more as f64) * (2.0 * now + more as f64) / (total * total)
            };
            of_class.iter().map(term).sum()
        };
        let size = |counts: &[usize]| counts.iter().sum::<usize>();
        let keys: Vec<(f64, usize)> = self.counts.iter().map(|counts| (cost(counts), size(counts))).collect();
        let better = |a: (f64, usize), b: (f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt();
        (1..keys.len()).fold(0, |best, fold| if better(keys[fold], keys[best]) { fold } else { best })
    }

    fn put(&mut self, unit: &[usize], fold: usize) {
        unit.iter().for_each(|&i| self.counts[fold][self.labels[i]] += 1);
    }

    fn check(&self, names: &[String]) -> Result<()> {
        let alone =
            |class: usize| self.totals[class] > 0 && self.counts.iter().any(|fold| fold[class] == self.totals[class]);
        match (0..self.totals.len()).find(|&class| alone(class)) {
            None => Ok(()),
            Some(class) => Err(DataError::invalid(
                format!(
                    "all {} images of the class {:?} are in one of {} folds, which leaves none to train on",
                    self.totals[class],
                    names[class],
                    self.counts.len()
                ),
                "each class needs two images, or two groups of images; or draw validation and test images instead of folds",
            )
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use proptest::prelude::*;

    fn stream(seed: u64) -> Stream {
        Stream::new(seed, Purpose::Folds, &[])
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("c{i}")).collect()
    }

    fn count(fold_of: &[usize], labels: &[usize], fold: usize, class: usize) -> usize {
        fold_of.iter().zip(labels).filter(|&(&f, &l)| f == fold && l == class).count()
    }

    proptest! {
        #[test]
        fn single_samples_are_dealt_evenly(labels in prop::collection::vec(0usize..4, 20..80), folds in 2usize..6, seed: u64) {
            let names = names(4);
            let dealt = assign_folds(&labels, &names, None, folds, stream(seed));
            let totals: Vec<usize> = (0..4).map(|c| labels.iter().filter(|&&l| l == c).count()).collect();
            prop_assert_eq!(dealt.is_err(), totals.contains(&1));
            if let Ok(dealt) = dealt {
                for class in 0..4 {
                    let counts: Vec<usize> = (0..folds).map(|fold| count(&dealt, &labels, fold, class)).collect();
                    prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
                }
                prop_assert_eq!(dealt, assign_folds(&labels, &names, None, folds, stream(seed)).unwrap());
            }
        }

        #[test]
        fn groups_stay_whole(groups in prop::collection::vec(0usize..12, 60), seed: u64) {
            let labels: Vec<usize> = (0..60).map(|i| i % 2).collect();
            let dealt = assign_folds(&labels, &names(2), Some(&groups), 3, stream(seed));
            prop_assume!(dealt.is_ok());
            let dealt = dealt.unwrap();
            for (i, j) in (0..60).flat_map(|i| (0..i).map(move |j| (i, j))) {
                prop_assert!(groups[i] != groups[j] || dealt[i] == dealt[j]);
            }
        }
    }

    #[test]
    fn the_seed_deals_anew() {
        let labels: Vec<usize> = (0..40).map(|i| i % 2).collect();
        let deal = |seed| assign_folds(&labels, &names(2), None, 5, stream(seed)).unwrap();
        assert_ne!(deal(0), deal(1));
    }

    #[test]
    fn impossible_folds_are_refused() {
        let names = names(2);
        let refused = |labels: &[usize], groups: Option<&[usize]>, folds| {
            assign_folds(labels, &names, groups, folds, stream(0)).unwrap_err().to_string()
        };
        assert!(refused(&[0, 1, 0, 1], None, 1).contains("1 folds"));
        assert!(refused(&[0, 1, 0, 1], None, 5).contains("4 images"));
        assert!(refused(&[0, 1, 0, 0], None, 2).contains("\"c1\""));
        assert!(refused(&[0, 1, 0, 1, 1], Some(&[0, 1, 2, 1, 1]), 2).contains("\"c1\""));
    }
}
