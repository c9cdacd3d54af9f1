//! How each test image was answered over the runs of a strategy.

use super::Measure;
use crate::data::read_splits_csv;
use crate::error::Result;
use crate::metrics::{bootstrap_groups, clopper_pearson, drawn_sign_flip_test, mean_interval, sign_flip_test};
use crate::report::predictions::Predictions;
use std::collections::BTreeMap;
use std::path::Path;

/// The file of a run with its predictions for the test images.
pub const PREDICTIONS: &str = "predictions-test.csv";
/// Likewise for the validation images, if there are any.
pub(super) const VAL_PREDICTIONS: &str = "predictions-val.csv";

/// How often each image was answered right, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcomes(BTreeMap<String, ImageOutcome>);

#[derive(Debug, Clone, PartialEq)]
struct ImageOutcome {
    class: String,
    group: Option<String>,
    right: u64,
    runs: u64,
}

/// Images that count as one: a group, or an image without one.
type Unit<'a> = (bool, &'a str);

/// Some of the images, by name.
type ByName<'a> = BTreeMap<&'a str, &'a ImageOutcome>;

impl Outcomes {
    /// Those of one run, whose predictions are in `file`.
    ///
    /// # Errors
    /// When its predictions or its splits cannot be read.
    pub fn of_run(folder: &Path, file: &str) -> Result<Self> {
        let predictions = Predictions::read(&folder.join(file))?;
        let rows = read_splits_csv(&folder.join("splits.csv"))?.into_iter().filter(|row| !row.group.is_empty());
        let mut groups: BTreeMap<String, String> = rows.map(|row| (row.path, row.group)).collect();
        let outcomes = predictions.rows.into_iter().map(|row| {
            let class = predictions.classes.get(row.label).cloned().unwrap_or_default();
            let right = u64::from(row.predicted == row.label);
            let group = groups.remove(&row.path);
            (row.path, ImageOutcome { class, group, right, runs: 1 })
        });
        Ok(Self(outcomes.collect()))
    }

    /// Counts another run's as well: of the same images under another seed, or of other images in another fold.
    pub fn add(&mut self, other: Self) {
        for (name, outcome) in other.0 {
            match self.0.get_mut(&name) {
                Some(known) => {
                    known.right += outcome.right;
                    known.runs += outcome.runs;
                }
                None => {
                    self.0.insert(name, outcome);
                }
            }
        }
    }

    /// Test images.
    pub fn images(&self) -> usize {
        self.0.len()
    }

    /// Whether they are of the same images.
    pub fn same_images(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
    }

    /// Groups of images, when some have one; images without one count as groups.
    pub fn groups(&self) -> Option<usize> {
        self.0.values().any(|outcome| outcome.group.is_some()).then(|| units(&self.by_name()).len())
    }

    /// What strategies are judged by; NaN without images.
    pub fn score(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Accuracy => self.accuracy(),
            Measure::BalancedAccuracy => self.balanced_accuracy(),
        }
    }

    /// The share of right answers; NaN without images.
    pub fn accuracy(&self) -> f64 {
        share(self.0.values())
    }

    /// The mean over the classes of the share of right answers.
    pub fn balanced_accuracy(&self) -> f64 {
        let classes = self.classes();
        classes.values().map(|outcomes| share(outcomes.values().copied())).sum::<f64>() / classes.len() as f64
    }

    /// What always naming the commonest class would score.
    pub fn majority(&self) -> f64 {
        let most = self.classes().values().map(BTreeMap::len).max().unwrap_or(0);
        most as f64 / self.images() as f64
    }

    /// What no answer that is always the same can exceed.
    pub fn chance(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Accuracy => self.majority(),
            Measure::BalancedAccuracy => 1.0 / self.classes().len() as f64,
        }
    }

    /// Whether the commonest class has more than `ratio` times the images of the rarest.
    pub fn unbalanced(&self, ratio: f64) -> bool {
        let classes = self.classes();
        let sizes = || classes.values().map(BTreeMap::len);
        sizes().max().unwrap_or(0) as f64 > ratio * sizes().min().unwrap_or(0) as f64
    }

    /// The 95 % interval of the score over other test images like these: exact for one answer per image, by bootstrap
    /// over images where answers are means over seeds, and over groups where there are any. None for a single group.
    /// The interval of balanced accuracy is put together from those of the recalls.
    pub fn interval(&self, measure: Measure) -> Option<[f64; 2]> {
        if measure == Measure::Accuracy {
            return share_interval(&self.by_name());
        }
        let classes = self.classes();
        let recalls = classes.values().map(|of| Some((share(of.values().copied()), share_interval(of)?)));
        let recalls: Option<Vec<(f64, [f64; 2])>> = recalls.collect();
        let within: usize = classes.values().map(|of| units(of).len()).sum();
        // Classes are independent of each other unless groups hold images of several.
        mean_interval(&recalls?, within == units(&self.by_name()).len())
    }

    /// The p-value of a score as different from `other`'s as this one, were both classifiers equally good: images, or
    /// groups of them, are the units, their answers summed over the runs. Images that only one has seen do not count.
    pub fn p_value(&self, other: &Self, measure: Measure) -> f64 {
        match measure {
            Measure::Accuracy => self.p_value_of_accuracy(other),
            Measure::BalancedAccuracy => self.p_value_of_recalls(other),
        }
    }

    fn p_value_of_accuracy(&self, other: &Self) -> f64 {
        let (ours, theirs) = (units(&self.by_name()), units(&other.by_name()));
        let difference = |(unit, (right, runs)): (&Unit<'_>, &(u64, u64))| {
            let (their_right, their_runs) = theirs.get(unit)?;
            // Right answers of as many runs each: a x / x and b y / y over the common denominator x y.
            Some((right * their_runs) as i64 - (their_right * runs) as i64)
        };
        let differences: Vec<i64> = ours.iter().filter_map(difference).collect();
        sign_flip_test(&differences)
    }

    /// Images count the more, the fewer their class has.
    fn p_value_of_recalls(&self, other: &Self) -> f64 {
        let mut differences: BTreeMap<Unit<'_>, f64> = BTreeMap::new();
        for of in self.classes().values() {
            let both: Vec<_> = of.iter().filter_map(|(name, ours)| Some((*name, *ours, other.0.get(*name)?))).collect();
            for (name, ours, theirs) in &both {
                *differences.entry(unit(name, ours)).or_default() +=
                    (ours.share() - theirs.share()) / both.len() as f64;
            }
        }
        drawn_sign_flip_test(&differences.into_values().collect::<Vec<f64>>())
    }

    fn by_name(&self) -> ByName<'_> {
        self.0.iter().map(|(name, outcome)| (name.as_str(), outcome)).collect()
    }

    fn classes(&self) -> BTreeMap<&str, ByName<'_>> {
        let mut classes: BTreeMap<&str, ByName<'_>> = BTreeMap::new();
        for (name, outcome) in &self.0 {
            classes.entry(&outcome.class).or_default().insert(name, outcome);
        }
        classes
    }
}

impl ImageOutcome {
    fn share(&self) -> f64 {
        self.right as f64 / self.runs as f64
    }
}

fn unit<'a>(name: &'a str, outcome: &'a ImageOutcome) -> Unit<'a> {
    outcome.group.as_deref().map_or((false, name), |group| (true, group))
}

/// (right answers, answers) of each unit.
fn units<'a>(outcomes: &ByName<'a>) -> BTreeMap<Unit<'a>, (u64, u64)> {
    let mut units = BTreeMap::new();
    for (name, outcome) in outcomes {
        let unit: &mut (u64, u64) = units.entry(unit(name, outcome)).or_default();
        unit.0 += outcome.right;
        unit.1 += outcome.runs;
    }
    units
}

fn share_interval(outcomes: &ByName<'_>) -> Option<[f64; 2]> {
    let units: Vec<(u64, u64)> = units(outcomes).into_values().collect();
    let single = units.len() == outcomes.len() && units.iter().all(|(_, runs)| *runs == 1);
    if single {
        return Some(clopper_pearson(units.iter().map(|(right, _)| right).sum(), units.len() as u64));
    }
    bootstrap_groups(&units)
}

fn share<'a>(outcomes: impl Iterator<Item = &'a ImageOutcome>) -> f64 {
    let (right, runs) = outcomes.fold((0, 0), |sum, outcome| (sum.0 + outcome.right, sum.1 + outcome.runs));
    right as f64 / runs as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Images `0`, `1`, …, right as often as said in so many runs; every other one of class b; in groups of `group`.
    pub(in crate::report) fn outcomes(right: &[u64], runs: u64, group: Option<usize>) -> Outcomes {
        let outcome = |(i, &right): (usize, &u64)| {
            let class = if i % 2 == 0 { "a" } else { "b" }.to_owned();
            let group = group.map(|size| format!("g{}", i / size));
            (format!("{i:04}"), ImageOutcome { class, group, right, runs })
        };
        Outcomes(right.iter().enumerate().map(outcome).collect())
    }

    #[test]
    fn seeds_add_up_and_folds_lie_beside_each_other() {
        let mut seeds = outcomes(&[1, 0, 1], 1, None);
        seeds.add(outcomes(&[1, 1, 0], 1, None));
        assert_eq!(seeds, outcomes(&[2, 1, 1], 2, None));
        assert!((seeds.accuracy() - 4.0 / 6.0).abs() < 1e-15);
        assert!((seeds.balanced_accuracy() - f64::midpoint(3.0 / 4.0, 1.0 / 2.0)).abs() < 1e-15);
        assert!((seeds.majority() - 2.0 / 3.0).abs() < 1e-15);
        let mut folds = outcomes(&[1, 0], 1, None);
        folds.add(Outcomes([("x".to_owned(), folds.0["0000"].clone())].into()));
        assert_eq!((folds.images(), folds.accuracy()), (3, 2.0 / 3.0));
    }

    #[test]
    fn one_answer_an_image_is_binomial_and_several_are_resampled() {
        let right: Vec<u64> = (0..90).map(|i| u64::from(i % 3 != 0)).collect();
        assert_eq!(outcomes(&right, 1, None).interval(Measure::Accuracy), Some(clopper_pearson(60, 90)));
        let twice: Vec<u64> = right.iter().map(|right| 2 * right).collect();
        let [low, high] = outcomes(&twice, 2, None).interval(Measure::Accuracy).unwrap();
        // Two seeds that always agree tell no more than one: nearly the same interval.
        assert!((low - 0.56).abs() < 0.03 && (high - 0.76).abs() < 0.03, "{low} {high}");
        let grouped = outcomes(&right, 1, Some(30));
        assert_eq!(grouped.groups(), Some(3));
        assert!(outcomes(&right, 1, Some(90)).interval(Measure::Accuracy).is_none());
        assert_eq!(outcomes(&right, 1, None).groups(), None);
    }

    #[test]
    fn pairs_are_images_or_groups_of_them() {
        let (better, worse) = (outcomes(&[1; 12], 1, None), outcomes(&[0; 12], 1, None));
        assert!((better.p_value(&worse, Measure::Accuracy) - 2.0 * 0.5f64.powi(12)).abs() < 1e-12);
        let (better, worse) = (outcomes(&[1; 12], 1, Some(4)), outcomes(&[0; 12], 1, Some(4)));
        assert!(
            (better.p_value(&worse, Measure::Accuracy) - 2.0 * 0.5f64.powi(3)).abs() < 1e-12,
            "three groups say little"
        );
        assert_eq!(better.p_value(&better, Measure::Accuracy), 1.0);
    }

    /// 9 defects and 291 good parts; so many of each are answered right.
    fn cells(defects: usize, good: usize, group: Option<usize>) -> Outcomes {
        let outcome = |i: usize| {
            let (class, right) = if i < 9 { ("defect", i < defects) } else { ("good", i - 9 < good) };
            let group = group.map(|size| format!("g{}", i % size));
            (format!("{i:04}"), ImageOutcome { class: class.into(), group, right: right.into(), runs: 1 })
        };
        Outcomes((0..300).map(outcome).collect())
    }

    #[test]
    fn nine_defects_count_as_much_as_all_good_parts() {
        let measure = Measure::BalancedAccuracy;
        let (finds, names_the_commonest) = (cells(9, 280, None), cells(0, 291, None));
        assert!(names_the_commonest.accuracy() > finds.accuracy());
        assert!(finds.score(measure) > 0.98 && names_the_commonest.score(measure) == 0.5);
        assert_eq!((finds.chance(measure), finds.chance(Measure::Accuracy)), (0.5, 0.97));
        // By accuracy the worthless one is not shown to be worse; defect for defect it surely is.
        assert!(finds.p_value(&names_the_commonest, Measure::Accuracy) > 0.5);
        assert!(finds.p_value(&names_the_commonest, measure) < 0.01);
        let [low, high] = finds.interval(measure).unwrap();
        assert!((low - 0.81).abs() < 0.02 && high > 0.98, "nine say little: {low} {high}");
        assert!(finds.unbalanced(1.5) && !outcomes(&[1; 12], 1, None).unbalanced(1.5));
        // Of parts that are in both classes the recalls may err together.
        let [grouped, _] = cells(8, 280, Some(60)).interval(measure).unwrap();
        assert!(grouped < cells(8, 280, None).interval(measure).unwrap()[0], "{grouped}");
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_accuracy(right in prop::collection::vec(0u64..=3, 2..60)) {
            let outcomes = outcomes(&right, 3, None);
            let [low, high] = outcomes.interval(Measure::Accuracy).unwrap();
            let accuracy = outcomes.accuracy();
            prop_assert!(0.0 <= low && low <= accuracy && accuracy <= high && high <= 1.0, "{low} {accuracy} {high}");
        }

        #[test]
        fn a_p_value_does_not_depend_on_the_side_or_on_unequal_numbers_of_runs(
            pairs in prop::collection::vec((0u64..=1, 0u64..=1), 1..40),
        ) {
            let (a, b): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
            let doubled: Vec<u64> = b.iter().map(|right| 2 * right).collect();
            let (a, b, doubled) = (outcomes(&a, 1, None), outcomes(&b, 1, None), outcomes(&doubled, 2, None));
            let p = |a: &Outcomes, b: &Outcomes| a.p_value(b, Measure::Accuracy);
            prop_assert!((p(&a, &b) - p(&b, &a)).abs() < 1e-12);
            prop_assert!((p(&a, &b) - p(&a, &doubled)).abs() < 1e-12);
        }
    }
}
