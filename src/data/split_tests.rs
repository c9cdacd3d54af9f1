use super::*;
use crate::data::testing::data_error;
use proptest::prelude::*;
use std::path::PathBuf;

fn entry(name: &str, class: &str, group: Option<&str>, split: Option<Split>) -> Entry {
    let group = group.map(Into::into);
    Entry { path: PathBuf::from(name), name: name.into(), class: class.into(), group, split, ..Entry::default() }
}

/// `counts[c]` entries of class `c`, sorted by name, with their labels.
fn listed(counts: &[usize]) -> (Vec<Entry>, Vec<usize>) {
    let mut entries = Vec::new();
    let mut labels = Vec::new();
    for (label, &count) in counts.iter().enumerate() {
        for i in 0..count {
            entries.push(entry(&format!("{label}/{i:04}"), &label.to_string(), None, None));
            labels.push(label);
        }
    }
    (entries, labels)
}

fn plan(val: f64, test: f64, seed: u64) -> SplitPlan {
    SplitPlan { val, test, seed, stratified: true, fold: None }
}

fn count(splits: &[Split], labels: &[usize], split: Split, label: usize) -> usize {
    splits.iter().zip(labels).filter(|&(s, l)| *s == split && *l == label).count()
}

proptest! {
    #[test]
    fn fractions_hold_in_each_class(
        counts in prop::collection::vec(1usize..60, 2..5), val in 0.0f64..0.4, test in 0.0f64..0.4, seed: u64,
    ) {
        let (entries, labels) = listed(&counts);
        let splits = assign(&entries, &labels, counts.len(), &plan(val, test, seed)).unwrap();
        for (label, &n) in counts.iter().enumerate() {
            let of = |split| count(&splits, &labels, split, label);
            prop_assert!(of(Split::Train) >= 1);
            for (split, fraction) in [(Split::Val, val), (Split::Test, test)] {
                let rounded = (n as f64 * fraction).round() as usize;
                if n >= 3 {
                    let expected = if fraction > 0.0 { rounded.max(1) } else { 0 };
                    prop_assert!(of(split).abs_diff(expected) <= usize::from(n < 6), "{n} {fraction} {}", of(split));
                    prop_assert!(fraction == 0.0 || of(split) >= 1);
                }
            }
        }
    }

    #[test]
    fn groups_stay_whole(groups in prop::collection::vec((0usize..12, 0usize..3), 12..120), seed: u64) {
        let mut entries = Vec::new();
        let mut labels = Vec::new();
        for (i, (group, label)) in groups.iter().enumerate() {
            entries.push(entry(&format!("{i:04}"), &label.to_string(), Some(&format!("g{group}")), None));
            labels.push(*label);
        }
        let splits = assign(&entries, &labels, 3, &plan(0.2, 0.2, seed)).unwrap();
        let mut side = BTreeMap::new();
        for (entry, split) in entries.iter().zip(&splits) {
            prop_assert_eq!(*side.entry(entry.group.clone()).or_insert(*split), *split);
        }
        for label in labels.iter().collect::<BTreeSet<_>>() {
            prop_assert!(count(&splits, &labels, Split::Train, *label) >= 1);
        }
    }

    #[test]
    fn other_files_do_not_move_a_file(seed: u64) {
        // The drawing order of a sample depends on its own name only, not on its place in the list.
        let (entries, _) = listed(&[30, 30]);
        let order = |entries: &[Entry]| -> BTreeMap<String, u64> {
            units(entries, seed).unwrap().iter().map(|u| (entries[u.members[0]].name.clone(), u.order)).collect()
        };
        let all = order(&entries);
        let some: Vec<Entry> = entries.into_iter().rev().step_by(3).collect();
        prop_assert!(order(&some).iter().all(|(name, order)| all[name] == *order));
    }
}

/// The splits of every fold of some entries.
fn dealt(entries: &[Entry], labels: &[usize], classes: usize, plan: &SplitPlan, of: usize) -> Result<Vec<Vec<Split>>> {
    let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let splits = |number| {
        let mut entries = entries.to_vec();
        deal(&mut entries, labels, &names, plan, Fold { number, of })?;
        assign(&entries, labels, classes, plan)
    };
    (1..=of).map(splits).collect()
}

/// How often each entry is tested on.
fn times_tested(folds: &[Vec<Split>]) -> Vec<usize> {
    (0..folds[0].len()).map(|i| folds.iter().filter(|splits| splits[i] == Split::Test).count()).collect()
}

proptest! {
    #[test]
    fn folds_test_every_entry_once_and_spread_classes(
        counts in prop::collection::vec(2usize..40, 2..4), of in 2usize..6, val in 0.0f64..0.4, seed: u64,
    ) {
        let (mut entries, labels) = listed(&counts);
        prop_assume!(of <= entries.len());
        // What the source says of splits does not count.
        entries.iter_mut().step_by(3).for_each(|entry| entry.split = Some(Split::Val));
        let folds = dealt(&entries, &labels, counts.len(), &plan(val, 0.0, seed), of).unwrap();
        prop_assert!(times_tested(&folds).iter().all(|&times| times == 1));
        for (label, &n) in counts.iter().enumerate() {
            for splits in &folds {
                let tested = count(splits, &labels, Split::Test, label);
                prop_assert!(tested == n / of || tested == n.div_ceil(of), "{tested} of {n} in one of {of}");
                prop_assert!(count(splits, &labels, Split::Train, label) >= 1);
                let wanted = ((n - tested) as f64 * val).round() as usize;
                prop_assert!(count(splits, &labels, Split::Val, label).abs_diff(wanted) <= 1);
            }
        }
    }

    #[test]
    fn folds_keep_groups_whole(
        groups in prop::collection::vec((0usize..14, 0usize..2), 30..90), of in 2usize..4, seed: u64, stratified: bool,
    ) {
        let labels: Vec<usize> = groups.iter().map(|(_, label)| *label).collect();
        let entries: Vec<Entry> = groups
            .iter()
            .enumerate()
            .map(|(i, (group, label))| {
                let group = (*group > 0).then(|| format!("g{group}"));
                entry(&format!("{i:04}"), &label.to_string(), group.as_deref(), None)
            })
            .collect();
        let plan = SplitPlan { stratified, ..plan(0.2, 0.0, seed) };
        // Large groups may hold all of a class, which is refused.
        let Ok(folds) = dealt(&entries, &labels, 2, &plan, of) else { return Ok(()) };
        prop_assert!(times_tested(&folds).iter().all(|&times| times == 1));
        for splits in &folds {
            let mut side = BTreeMap::new();
            for (entry, split) in entries.iter().zip(splits).filter(|(entry, _)| entry.group.is_some()) {
                prop_assert_eq!(*side.entry(entry.group.clone()).or_insert(*split), *split);
            }
        }
    }
}

#[test]
fn folds_without_strata_are_of_equal_size() {
    let (entries, labels) = listed(&[3, 40]);
    let plan = SplitPlan { stratified: false, ..plan(0.0, 0.0, 1) };
    for splits in dealt(&entries, &labels, 2, &plan, 5).unwrap() {
        let tested = splits.iter().filter(|&&split| split == Split::Test).count();
        assert!((8..=9).contains(&tested), "{tested}");
    }
}

#[test]
fn impossible_folds_name_what_is_missing() {
    let (entries, labels) = listed(&[10, 1]);
    let refused = dealt(&entries, &labels, 2, &plan(0.2, 0.0, 0), 3).unwrap_err();
    assert!(refused.to_string().contains("\"1\""), "{refused}");
    let refused = dealt(&entries, &labels, 2, &plan(0.2, 0.0, 0), 12).unwrap_err();
    assert!(refused.to_string().contains("11 images"), "{refused}");
}

#[test]
fn seeds_differ_and_repeat() {
    let (entries, labels) = listed(&[40, 40]);
    let draw = |seed| assign(&entries, &labels, 2, &plan(0.15, 0.15, seed)).unwrap();
    assert_eq!(draw(0), draw(0));
    assert_ne!(draw(0), draw(1));
}

#[test]
fn a_group_of_many_samples_does_not_overfill_a_split() {
    let mut entries = Vec::new();
    for i in 0..100 {
        let group = if i < 60 { "large".to_owned() } else { format!("small{i}") };
        entries.push(entry(&format!("{i:03}"), "a", Some(&group), None));
    }
    for seed in 0..20 {
        let splits = assign(&entries, &[0; 100], 1, &plan(0.2, 0.0, seed)).unwrap();
        assert_eq!(splits[0], Split::Train);
        assert_eq!(splits.iter().filter(|&&split| split == Split::Val).count(), 20);
    }
}

#[test]
fn a_missing_split_is_drawn_from_train() {
    let (mut entries, labels) = listed(&[20, 20]);
    for (i, entry) in entries.iter_mut().enumerate() {
        entry.split = Some(if i % 4 == 0 { Split::Test } else { Split::Train });
    }
    let splits = assign(&entries, &labels, 2, &plan(0.2, 0.5, 0)).unwrap();
    assert_eq!(count(&splits, &labels, Split::Val, 0), 3);
    assert_eq!(count(&splits, &labels, Split::Test, 1), 5, "a split the source names is not drawn");
    let untouched = assign(&entries, &labels, 2, &SplitPlan::NOTHING_TO_DRAW).unwrap();
    assert_eq!(count(&untouched, &labels, Split::Val, 0), 0);
}

#[test]
fn only_rows_without_a_split_are_drawn() {
    let (mut entries, labels) = listed(&[20, 20]);
    entries.iter_mut().step_by(2).for_each(|entry| entry.split = Some(Split::Train));
    let splits = assign(&entries, &labels, 2, &plan(0.2, 0.2, 0)).unwrap();
    assert!(splits.iter().step_by(2).all(|&split| split == Split::Train));
    assert_eq!(count(&splits, &labels, Split::Val, 0), 2);
    assert_eq!(count(&splits, &labels, Split::Test, 0), 2);
}

#[test]
fn a_group_follows_its_named_member() {
    let mut entries = listed(&[10, 10]).0;
    let labels = [vec![0; 10], vec![1; 10]].concat();
    for entry in &mut entries[..3] {
        entry.group = Some("roll 1".into());
    }
    entries[1].split = Some(Split::Test);
    let splits = assign(&entries, &labels, 2, &plan(0.2, 0.2, 0)).unwrap();
    assert_eq!(splits[..3], [Split::Test; 3]);
    entries[0].split = Some(Split::Train);
    let error = data_error(assign(&entries, &labels, 2, &plan(0.2, 0.2, 0)));
    assert!(error.contains("\"roll 1\" is in train and test"), "{error}");
}

#[test]
fn unstratified_fractions_hold_for_the_whole() {
    let (entries, labels) = listed(&[50, 50]);
    let plan = SplitPlan { stratified: false, ..plan(0.2, 0.1, 3) };
    let splits = assign(&entries, &labels, 2, &plan).unwrap();
    let total = |split| splits.iter().filter(|&&s| s == split).count();
    assert_eq!((total(Split::Val), total(Split::Test)), (20, 10));
}

#[test]
fn few_samples() {
    assert_eq!(targets(1, 0.5, 0.5), (0.0, 0.0));
    assert_eq!(targets(2, 0.15, 0.15), (0.0, 0.0));
    assert_eq!(targets(3, 0.15, 0.15), (1.0, 1.0));
    assert_eq!(targets(3, 0.9, 0.15), (1.0, 1.0));
    assert_eq!(targets(100, 0.15, 0.0), (15.0, 0.0));
}

#[test]
fn copies_are_on_one_side_of_a_drawn_split() {
    let (mut entries, labels) = listed(&[30, 30]);
    let alone = assign(&entries, &labels, 2, &plan(0.3, 0.3, 5)).unwrap();
    // Across classes, and one of a group beside a file without one.
    let copies = [[3, 41], [7, 8], [12, 50]];
    for (digest, pair) in copies.iter().enumerate() {
        pair.iter().for_each(|&index| entries[index].copied = Some([digest as u8; 32]));
    }
    entries[50].group = Some("roll".into());
    entries[51].group = Some("roll".into());
    for seed in 0..20 {
        let splits = assign(&entries, &labels, 2, &plan(0.3, 0.3, seed)).unwrap();
        assert!(copies.iter().all(|[a, b]| splits[*a] == splits[*b]), "{splits:?}");
        assert_eq!(splits[12], splits[51], "through the group of its copy");
        let folds = dealt(&entries, &labels, 2, &plan(0.2, 0.0, seed), 3).unwrap();
        assert!(folds.iter().all(|splits| copies.iter().all(|[a, b]| splits[*a] == splits[*b])));
        assert!(times_tested(&folds).iter().all(|&times| times == 1));
    }
    assert!(copies.iter().any(|[a, b]| alone[*a] != alone[*b]), "chance had parted them");
    // What the source says stands, and is found when the images are read.
    entries[3].split = Some(Split::Test);
    entries[41].split = Some(Split::Train);
    let splits = assign(&entries, &labels, 2, &plan(0.3, 0.0, 0)).unwrap();
    assert_eq!((splits[3], splits[41]), (Split::Test, Split::Train));
}

#[test]
fn copies_do_not_join_groups_that_the_source_keeps_apart() {
    let mut entries = listed(&[6]).0;
    // Two rolls of which only the last rows name a split, and a file that is in both.
    for (index, roll) in ["one", "two", "one", "two"].into_iter().enumerate() {
        entries[index].group = Some(roll.into());
    }
    entries[0].copied = Some([1; 32]);
    entries[1].copied = Some([1; 32]);
    entries[2].split = Some(Split::Train);
    entries[3].split = Some(Split::Test);
    let splits = assign(&entries, &[0; 6], 1, &plan(0.2, 0.0, 0)).unwrap();
    assert_eq!(splits[..4], [Split::Train, Split::Test, Split::Train, Split::Test]);
}
