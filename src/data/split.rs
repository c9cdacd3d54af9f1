//! Draws validation and test samples: by class, whole groups, the same whatever order files are listed in.

use super::folds::{self, assign_folds};
use super::{Entry, Split};
use crate::config::{DataSettings, Fold};
use crate::error::{DataError, Result};
use crate::linalg::tally;
use crate::rng::{Purpose, Stream};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// How splits are drawn that the source does not name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SplitPlan {
    /// Fraction for validation.
    pub val: f64,
    /// Fraction for testing.
    pub test: f64,
    /// Seed of the drawing.
    pub seed: u64,
    /// Fractions hold for each class rather than for the whole.
    pub stratified: bool,
    /// The fold that is tested on, instead of a fraction.
    pub fold: Option<Fold>,
}

impl SplitPlan {
    /// Samples without a split all go to train.
    pub(super) const NOTHING_TO_DRAW: Self = Self { val: 0.0, test: 0.0, seed: 0, stratified: true, fold: None };

    pub(super) fn new(settings: &DataSettings) -> Self {
        let DataSettings { val, test, split_seed: seed, stratified, fold, .. } = *settings;
        Self { val, test, seed, stratified, fold }
    }

    /// Whether anything is left to chance among these entries.
    pub(super) fn draws(&self, entries: &[Entry]) -> bool {
        let named = |split| entries.iter().any(|entry| entry.split == Some(split));
        let draws = |split, fraction: f64| fraction > 0.0 && !named(split);
        self.fold.is_some() || draws(Split::Val, self.val) || draws(Split::Test, self.test)
    }
}

/// Samples that must stay together: a group, copies of a file, or one sample without either.
struct Group {
    members: Vec<usize>,
    /// The split one of its members has in the source.
    fixed: Option<Split>,
    /// Its position in the drawing: depends on the seed and its own name only, so that adding a file moves no other.
    order: u64,
}

/// Assigns the entries of one fold to test and leaves the others to be drawn, whatever splits their source names.
///
/// Runs with the same data set and seed agree on the folds, so that over all folds every entry is tested on once.
pub(super) fn deal(
    entries: &mut [Entry],
    labels: &[usize],
    classes: &[String],
    plan: &SplitPlan,
    fold: Fold,
) -> Result<()> {
    // What its source says of splits does not count.
    entries.iter_mut().for_each(|entry| entry.split = None);
    let groups = together(entries);
    let stream = Stream::new(plan.seed, Purpose::TestFolds, &[]);
    let fold_of = if plan.stratified {
        assign_folds(labels, classes, Some(&groups), fold.of, stream)?
    } else {
        let one_class = vec![0; labels.len()];
        assign_folds(&one_class, &["any class".to_owned()], Some(&groups), fold.of, stream)?
    };
    for (entry, index) in entries.iter_mut().zip(fold_of) {
        entry.split = (index + 1 == fold.number).then_some(Split::Test);
    }
    Ok(())
}

/// The split of each entry. `labels[i]` is the class of `entries[i]`, which are sorted by name.
///
/// A split that no entry names is drawn from the entries without a split, or from train when every entry has one.
pub(super) fn assign(entries: &[Entry], labels: &[usize], classes: usize, plan: &SplitPlan) -> Result<Vec<Split>> {
    let mut units = units(entries, plan.seed)?;
    let named = |split| entries.iter().any(|entry| entry.split == Some(split));
    let open = units.iter().any(|unit| unit.fixed.is_none());
    units.sort_by_key(|unit| unit.order);
    let (pool, settled): (Vec<Group>, Vec<Group>) =
        units.into_iter().partition(|unit| if open { unit.fixed.is_none() } else { unit.fixed == Some(Split::Train) });

    let mut splits = vec![Split::Train; entries.len()];
    for unit in &settled {
        place(unit, unit.fixed.unwrap_or(Split::Train), &mut splits);
    }
    let fraction = |split, fraction| if named(split) { 0.0 } else { fraction };
    let fractions = (fraction(Split::Val, plan.val), fraction(Split::Test, plan.test));
    let mut draw = Draw::new((&pool, &settled), labels, classes, plan.stratified, fractions);
    for unit in &pool {
        place(unit, draw.split(unit, labels), &mut splits);
    }
    Ok(splits)
}

fn place(unit: &Group, split: Split, splits: &mut [Split]) {
    for &member in &unit.members {
        splits[member] = split;
    }
}

/// For each entry the first of those that it must stay with: its group's, and those with the same bytes, unless their
/// source puts them into different splits. Which splits it names for a group is known before copies are looked at, so that
/// they never join two groups which it keeps apart.
fn together(entries: &[Entry]) -> Vec<usize> {
    let mut units =
        Units { first: (0..entries.len()).collect(), side: entries.iter().map(|entry| entry.split).collect() };
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(group) = entry.group.as_deref() {
            units.join(*groups.entry(group).or_insert(index), index, true);
        }
    }
    let mut copies: BTreeMap<&[u8; 32], usize> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(digest) = &entry.copied {
            units.join(*copies.entry(digest).or_insert(index), index, false);
        }
    }
    (0..entries.len()).map(|index| units.first(index)).collect()
}

/// Entries that stay together, as trees: the root of each is its first entry.
struct Units {
    /// A member nearer to the root.
    first: Vec<usize>,
    /// The split that the source names for a root's entries, the first if there are several.
    side: Vec<Option<Split>>,
}

impl Units {
    fn first(&mut self, mut of: usize) -> usize {
        while self.first[of] != of {
            self.first[of] = self.first[self.first[of]];
            of = self.first[of];
        }
        of
    }

    /// Joins the units of two entries; those of different splits only if `anyway`.
    fn join(&mut self, one: usize, other: usize, anyway: bool) {
        let (one, other) = (self.first(one), self.first(other));
        let (a, b) = (one.min(other), one.max(other));
        let apart = self.side[a].zip(self.side[b]).is_some_and(|(a, b)| a != b);
        if a != b && (anyway || !apart) {
            self.side[a] = self.side[a].or(self.side[b]);
            self.first[b] = a;
        }
    }
}

fn units(entries: &[Entry], seed: u64) -> Result<Vec<Group>> {
    // The name of a unit: that of a group if it holds one.
    let key = |&member: &usize| {
        let entry = &entries[member];
        entry.group.as_deref().map_or((false, entry.name.as_str()), |group| (true, group))
    };
    folds::units(entries.len(), Some(&together(entries)))
        .into_iter()
        .map(|members| {
            let (is_group, name) = members.iter().map(key).max().unwrap_or_default();
            let sides: BTreeSet<Split> = members.iter().filter_map(|&member| entries[member].split).collect();
            if sides.len() > 1 {
                let sides: Vec<&str> = sides.iter().map(|side| side.name()).collect();
                return Err(DataError::invalid(
                    format!("the group {name:?} is in {}", sides.join(" and ")),
                    "all images of a group belong to one split, or the score is measured on images that were trained on",
                )
                .into());
            }
            let order = Stream::new(seed, Purpose::Split, &[u64::from(is_group), name_key(name)]).below(u64::MAX);
            Ok(Group { members, fixed: sides.first().copied(), order })
        })
        .collect()
}

/// A number that stands for a name in random streams.
pub(super) fn name_key(name: &str) -> u64 {
    Sha256::digest(name.as_bytes()).iter().take(8).fold(0, |key, &byte| key << 8 | u64::from(byte))
}

/// How many samples each split still wants, by stratum: a class, or everything when not stratified.
struct Draw {
    stratified: bool,
    /// Samples of each class that are train or may still become it; never below 1.
    left: Vec<usize>,
    val: Vec<f64>,
    test: Vec<f64>,
}

impl Draw {
    fn new(
        (pool, settled): (&[Group], &[Group]),
        labels: &[usize],
        classes: usize,
        stratified: bool,
        (val, test): (f64, f64),
    ) -> Self {
        let count = |units: &[Group], keep: &dyn Fn(&Group) -> bool| {
            let members = units.iter().filter(|unit| keep(unit)).flat_map(|unit| &unit.members);
            tally(members.map(|&member| labels[member]), classes)
        };
        let pool = count(pool, &|_| true);
        let train = count(settled, &|unit| unit.fixed == Some(Split::Train));
        let left = pool.iter().zip(&train).map(|(a, b)| a + b).collect();
        let strata = if stratified { pool } else { vec![pool.iter().sum()] };
        let (val, test) = strata.into_iter().map(|n| targets(n, val, test)).unzip();
        Self { stratified, left, val, test }
    }

    /// The split of a group: where it lowers the squared shortfall most, else train. A class never loses its last
    /// training sample.
    fn split(&mut self, unit: &Group, labels: &[usize]) -> Split {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for &member in &unit.members {
            *counts.entry(labels[member]).or_default() += 1;
        }
        if counts.iter().any(|(&label, &n)| self.left[label] <= n) {
            return Split::Train;
        }
        let mut strata: BTreeMap<usize, f64> = BTreeMap::new();
        for (&label, &n) in &counts {
            *strata.entry(if self.stratified { label } else { 0 }).or_default() += n as f64;
        }
        let gain = |wanted: &[f64]| strata.iter().map(|(&s, &n)| n * (2.0 * wanted[s] - n)).sum::<f64>();
        let (val, test) = (gain(&self.val), gain(&self.test));
        if val.max(test) <= 0.0 {
            return Split::Train;
        }
        let (side, wanted) = if val >= test { (Split::Val, &mut self.val) } else { (Split::Test, &mut self.test) };
        for (&stratum, &n) in &strata {
            wanted[stratum] -= n;
        }
        for (&label, &n) in &counts {
            self.left[label] -= n;
        }
        side
    }
}

/// Samples out of `n` for validation and test: rounded fractions, at least one each from three samples on, and at
/// least one left for training.
fn targets(n: usize, val: f64, test: f64) -> (f64, f64) {
    let wanted = |fraction: f64| match (fraction > 0.0, n) {
        (false, _) => 0.0,
        (true, 0..=2) => (n as f64 * fraction).round(),
        (true, _) => (n as f64 * fraction).round().max(1.0),
    };
    let room = n.saturating_sub(1) as f64;
    let (val, test) = (wanted(val), wanted(test));
    let val = val.min(room - test.min(1.0)).max(0.0);
    (val, test.min(room - val))
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
