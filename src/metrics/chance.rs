//! Whether a classifier does better than chance, as a whole and class by class.

use super::{ClassReport, Evaluation, clopper_pearson};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

/// Classes are unbalanced when the commonest has more than this many times the images of the rarest.
pub const UNBALANCED: f64 = 1.5;

/// The error that is accepted on each side of 95 % intervals.
const TAIL: f64 = 0.025;
/// The share of a class that must be found, and the p-value below which it surely is not.
const HALF: f64 = 0.5;
const SURE: f64 = 0.05;
/// The p-value below which some of many classes surely are not, of which there are too few images each to say which.
const SURE_OF_MANY: f64 = 0.01;
/// The AUROC that images have to be enough for before they speak against scores.
const USEFUL: f64 = 0.85;

/// Whether scores tell the classes apart better than chance: the accuracy's interval lies above always naming the
/// commonest class, or a class has an AUROC above 1/2 by the test of Mann and Whitney, corrected for the classes.
pub fn better_than_chance(evaluation: &Evaluation) -> bool {
    let by_accuracy = evaluation.accuracy_ci95.is_some_and(|[low, _]| low > evaluation.majority_baseline);
    by_accuracy || ranks_better_than_chance(evaluation)
}

/// Whether a class has an AUROC above 1/2 by the test of Mann and Whitney, corrected for the classes.
pub fn ranks_better_than_chance(evaluation: &Evaluation) -> bool {
    evaluation.per_class.iter().any(|class| class.auroc.is_some_and(|auroc| shows(evaluation, class, auroc)))
}

/// Whether scores are as good as chance although the images are enough to show useful ones to be better: an AUROC of
/// `USEFUL`, or half of the mistakes of always naming the commonest class. With one defect among fifty images not even a
/// perfect answer is better than chance beyond noise: there nothing can be said.
pub fn no_better_than_chance(evaluation: &Evaluation) -> bool {
    let all: u64 = evaluation.per_class.iter().map(ClassReport::independent).sum();
    let half = f64::midpoint(1.0, evaluation.majority_baseline) * all as f64;
    let tells = clopper_pearson(half.round() as u64, all)[0] > evaluation.majority_baseline
        || evaluation.per_class.iter().any(|class| class.auroc.is_some() && shows(evaluation, class, USEFUL));
    tells && !better_than_chance(evaluation)
}

/// Whether an AUROC of a class is above 1/2 beyond noise.
fn shows(evaluation: &Evaluation, class: &ClassReport, auroc: f64) -> bool {
    let classes = evaluation.per_class.iter().filter(|class| class.auroc.is_some()).count();
    let Ok(normal) = Normal::new(0.0, 1.0) else { return false };
    let limit = normal.inverse_cdf(1.0 - TAIL / classes.max(1) as f64);
    let all = evaluation.per_class.iter().map(ClassReport::independent).sum::<u64>() as f64;
    let positive = class.independent() as f64;
    let deviation = ((all + 1.0) / (12.0 * positive * (all - positive))).sqrt();
    auroc - HALF > limit * deviation
}

/// Whether the scores of a class rank its images well, whatever is answered.
pub fn ranks_well(class: &ClassReport) -> bool {
    class.auroc.is_some_and(|auroc| auroc >= USEFUL)
}

/// The classes of which fewer than half are found: not by chance, by the binomial test at 5 % corrected for the classes. Or
/// where classes have too few images for that: those of which nothing is found, when they are more than chance leaves at 1 %.
pub fn missed_classes(evaluation: &Evaluation) -> Vec<&ClassReport> {
    let present = || evaluation.per_class.iter().filter(|class| class.support > 0);
    let classes = present().count().max(1) as f64;
    let missed = |class: &&ClassReport| {
        Binomial::new(HALF, class.independent())
            .is_ok_and(|binomial| binomial.cdf(class.independent_found()) < SURE / classes)
    };
    let shown: Vec<&ClassReport> = present().filter(missed).collect();
    if !shown.is_empty() {
        return shown;
    }
    let unfound: Vec<&ClassReport> = present().filter(|class| class.independent_found() == 0).collect();
    // How likely each number of such classes is where half of each is found.
    let mut chances = vec![1.0];
    for class in present() {
        let none = HALF.powf(class.independent() as f64);
        chances.push(0.0);
        for count in (0..chances.len()).rev() {
            let fewer = if count == 0 { 0.0 } else { chances[count - 1] };
            chances[count] = chances[count] * (1.0 - none) + fewer * none;
        }
    }
    let as_many: f64 = chances[unfound.len()..].iter().sum();
    if as_many < SURE_OF_MANY { unfound } else { Vec::new() }
}

/// Whether the commonest class of an evaluation has more than [`UNBALANCED`] times the images of this one.
pub fn is_rare(class: &ClassReport, evaluation: &Evaluation) -> bool {
    let most = evaluation.per_class.iter().map(|class| class.support).max().unwrap_or(0);
    most as f64 > UNBALANCED * class.support as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::evaluate;

    /// Two classes, 'a' of `a` images and 'b' of `b`, with the logit of 'b' of each.
    fn evaluation(a: usize, b: usize, logit: impl Fn(usize) -> f64) -> Evaluation {
        let labels: Vec<usize> = (0..a + b).map(|i| usize::from(i >= a)).collect();
        let logits: Vec<f64> = (0..a + b).flat_map(|i| [0.0, logit(i)]).collect();
        evaluate("val", &logits, &labels, &["a".into(), "b".into()], 1.0, &[]).unwrap()
    }

    #[test]
    fn five_images_are_no_proof() {
        // 0 of 5 happens once in 32 where half are found; 0 of 6 once in 64.
        let always_a = |a, b| evaluation(a, b, |_| -1.0);
        assert!(missed_classes(&always_a(60, 5)).is_empty());
        assert_eq!(missed_classes(&always_a(60, 6))[0].class, "b");
        assert!(missed_classes(&evaluation(60, 60, |i| if i % 2 == 0 { 1.0 } else { -1.0 })).is_empty());
    }

    #[test]
    fn of_many_classes_some_are_missed_though_none_is_shown_to_be() {
        // Four images a class: that nothing of one is found happens once in 16.
        let classes: Vec<String> = (0..26).map(|class| format!("c{class:02}")).collect();
        let labels: Vec<usize> = (0..104).map(|image| image / 4).collect();
        let missed = |unfound: usize| {
            let answer = |&label: &usize| if label < unfound { 25 } else { label };
            let row = |label: &usize| (0..26).map(|class| f64::from(class == answer(label))).collect::<Vec<f64>>();
            let logits: Vec<f64> = labels.iter().flat_map(row).collect();
            missed_classes(&evaluate("val", &logits, &labels, &classes, 1.0, &[]).unwrap()).len()
        };
        assert_eq!([0, 3, 11].map(missed), [0, 0, 11]);
    }

    #[test]
    fn photographs_of_one_part_are_one_proof() {
        let (labels, classes): (Vec<usize>, _) =
            ((0..80).map(|i| usize::from(i >= 60)).collect(), ["a".into(), "b".into()]);
        let logits: Vec<f64> = (0..80).flat_map(|_| [0.0, -1.0]).collect();
        let missed = |parts: usize| {
            let names: Vec<String> = (0..80).map(|i| format!("{}", if i < 60 { i } else { 100 + i % parts })).collect();
            let groups: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
            missed_classes(&evaluate("val", &logits, &labels, &classes, 1.0, &groups).unwrap()).len()
        };
        assert_eq!((missed(1), missed(5), missed(6), missed(20)), (0, 0, 1, 1));
    }

    #[test]
    fn a_ranking_is_better_than_chance_where_the_accuracy_is_not() {
        // All are called 'a', but the six of 'b' come last.
        let ranked = evaluation(94, 6, |i| i as f64 - 200.0);
        assert_eq!(ranked.accuracy, ranked.majority_baseline);
        assert!(better_than_chance(&ranked));
        assert!(!better_than_chance(&evaluation(94, 6, |i| f64::from(i % 7 == 0) - 2.0)));
        assert!(better_than_chance(&evaluation(30, 30, |i| if i < 30 { -1.0 } else { 1.0 })));
        assert!(!better_than_chance(&evaluation(30, 30, |i| if i % 2 == 0 { -1.0 } else { 1.0 })));
    }

    #[test]
    fn where_good_scores_would_show_nothing_nothing_is_said() {
        let right = |i: usize, a: usize| if i < a { -1.0 } else { 1.0 };
        let one_defect = evaluation(49, 1, |i| right(i, 49));
        assert!(one_defect.accuracy == 1.0 && !better_than_chance(&one_defect) && !no_better_than_chance(&one_defect));
        let two_defects = evaluation(18, 2, |i| if i % 5 == 0 { -1.0 } else { -2.0 });
        assert!(!better_than_chance(&two_defects) && !no_better_than_chance(&two_defects));
        let five = evaluation(3, 2, |i| right(i, 3));
        assert!(!better_than_chance(&five) && !no_better_than_chance(&five));
        assert!(no_better_than_chance(&evaluation(30, 30, |i| if i % 2 == 0 { -1.0 } else { 1.0 })));
        assert!(!no_better_than_chance(&evaluation(30, 30, |i| right(i, 30))));
    }
}
