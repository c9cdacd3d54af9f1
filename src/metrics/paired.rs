//! Whether classifiers that answered the same images differ by more than chance, and how far training runs scatter.

use crate::rng::{Purpose, Stream};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Sign patterns that are drawn where they are not all counted.
pub const PATTERNS: u32 = 9_999;

/// The two-sided p-value of the exact sign-flip test: how likely a sum at least as far from 0 is, if each difference had
/// either sign with equal probability.
///
/// A difference is the number of right answers of one classifier on a unit less that of the other, a unit being an image
/// or a group of images that belong together; scores averaged over seeds come as their sums. Of two single classifiers on
/// single images the differences are -1, 0 and 1, and this is `McNemar`'s test in its exact form. Without any difference
/// it is 1.
///
/// All sign patterns are counted, not drawn: the distribution of the sum is built up difference by difference, in
/// (differences) x (sum of their sizes) steps.
pub fn sign_flip_test(differences: &[i64]) -> f64 {
    let unit = differences.iter().fold(0, |unit, difference| gcd(unit, difference.unsigned_abs()));
    if unit == 0 {
        return 1.0;
    }
    let sizes: Vec<usize> =
        differences.iter().filter(|&&d| d != 0).map(|d| (d.unsigned_abs() / unit) as usize).collect();
    let total: usize = sizes.iter().sum();
    let observed = differences.iter().sum::<i64>().unsigned_abs() / unit;
    // The probability of each sum of the sizes whose sign is positive.
    let mut probability = vec![0.0; total + 1];
    probability[0] = 1.0;
    let mut reached = 0;
    for size in sizes {
        reached += size;
        for sum in (0..=reached).rev() {
            let from_below = if sum >= size { probability[sum - size] } else { 0.0 };
            probability[sum] = 0.5 * (probability[sum] + from_below);
        }
    }
    let as_far = |positive: usize| (2 * positive as u64).abs_diff(total as u64) >= observed;
    let p: f64 = probability.iter().enumerate().filter(|(positive, _)| as_far(*positive)).map(|(_, p)| p).sum();
    p.min(1.0)
}

/// The same for differences of any size, as where images count by their class: of [`PATTERNS`] drawn sign patterns, and the
/// one that was observed, the share whose sum is at least as far from 0. The draw is always the same.
pub fn drawn_sign_flip_test(differences: &[f64]) -> f64 {
    let sizes: Vec<f64> = differences.iter().map(|d| d.abs()).filter(|&size| size > 0.0).collect();
    let observed = differences.iter().sum::<f64>().abs();
    // Sums in another order differ in their last bits.
    let as_far = observed - 1e-9 * sizes.iter().sum::<f64>();
    let mut stream = Stream::new(0, Purpose::Bootstrap, &[]);
    let mut drawn = || sizes.iter().map(|&size| if stream.chance(0.5) { size } else { -size }).sum::<f64>().abs();
    let far = (0..PATTERNS).filter(|_| drawn() >= as_far).count();
    (1 + far) as f64 / f64::from(PATTERNS + 1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// P-values corrected for being several (Holm 1979): with those at most α called real, any false one among them has at
/// most probability α. In the order given.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest = 0.0f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max(p_values[index] * (p_values.len() - rank) as f64).min(1.0);
        corrected[index] = largest;
    }
    corrected
}

/// The 95 % interval of the mean of normally distributed values, by Student's t; none for fewer than two.
///
/// For scores by seed on the same images it says how well the mean over all seeds is known, and nothing about others.
pub fn t_interval(values: &[f64]) -> Option<[f64; 2]> {
    let n = values.len() as f64;
    let deviation = standard_deviation(values)?;
    let quantile = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(0.975);
    let (mean, half) = (values.iter().sum::<f64>() / n, quantile * deviation / n.sqrt());
    Some([mean - half, mean + half])
}

/// The sample standard deviation; none for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.len() > 1).then(|| (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    // Printed by tests/fixtures/make_paired_fixtures.py with SciPy.
    const REFERENCE: &str = include_str!("../../tests/fixtures/paired.json");

    fn cases(name: &str) -> Vec<Value> {
        let reference: Value = serde_json::from_str(REFERENCE).unwrap();
        reference[name].as_array().unwrap().clone()
    }

    fn assert_near(got: f64, want: &Value, what: &Value) {
        let want = want.as_f64().unwrap();
        assert!((got - want).abs() <= 1e-9 * want.max(1e-3), "{what}: {got}");
    }

    #[test]
    fn equals_the_exact_mcnemar_test_of_scipy() {
        for case in cases("mcnemar") {
            let count = |name: &str| case[name].as_u64().unwrap() as usize;
            let differences = [vec![1; count("better")], vec![-1; count("worse")], vec![0; 7]].concat();
            assert_near(sign_flip_test(&differences), &case["p"], &case);
        }
    }

    #[test]
    fn equals_the_permutation_test_of_scipy() {
        for case in cases("sign_flip") {
            let differences: Vec<i64> = serde_json::from_value(case["differences"].clone()).unwrap();
            assert_near(sign_flip_test(&differences), &case["p"], &case);
        }
    }

    #[test]
    fn drawn_patterns_come_near_all_of_them() {
        for case in cases("sign_flip") {
            let differences: Vec<i64> = serde_json::from_value(case["differences"].clone()).unwrap();
            let weighed: Vec<f64> = differences.iter().map(|&d| d as f64 / 7.0).collect();
            let (drawn, all) = (drawn_sign_flip_test(&weighed), sign_flip_test(&differences));
            assert!(
                (drawn - all).abs() < 4.0 * (all * (1.0 - all) / f64::from(PATTERNS)).sqrt() + 2e-4,
                "{drawn} {all}"
            );
        }
        assert_eq!((drawn_sign_flip_test(&[]), drawn_sign_flip_test(&[0.0; 5])), (1.0, 1.0));
        assert_eq!(drawn_sign_flip_test(&[0.1; 40]), 1e-4, "no pattern is never as far");
    }

    #[test]
    fn equals_the_t_interval_of_scipy() {
        for case in cases("t_interval") {
            let values: Vec<f64> = serde_json::from_value(case["values"].clone()).unwrap();
            let [low, high] = t_interval(&values).unwrap();
            assert_near(low, &case["interval"][0], &case);
            assert_near(high, &case["interval"][1], &case);
        }
        assert_eq!((t_interval(&[0.5]), t_interval(&[]), standard_deviation(&[1.0])), (None, None, None));
    }

    #[test]
    fn holm_steps_down_and_never_decreases() {
        // By hand: 3 x 0.01, then 2 x 0.02, then the larger of 1 x 0.03 and what came before.
        let corrected = holm(&[0.03, 0.01, 0.02]);
        assert!(
            corrected.iter().zip([0.04, 0.03, 0.04]).all(|(got, want)| (got - want).abs() < 1e-15),
            "{corrected:?}"
        );
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }

    #[test]
    fn many_images_take_no_time_and_do_not_underflow() {
        let differences: Vec<i64> = (0..6000).map(|i| if i % 2 == 0 { 2 } else { -1 - i % 3 }).collect();
        assert!((0.0..=1.0).contains(&sign_flip_test(&differences)));
        assert!(sign_flip_test(&[1; 2000]) < 1e-300);
    }

    proptest! {
        #[test]
        fn a_p_value_is_a_probability_and_has_no_side(differences in prop::collection::vec(-9..=9i64, 0..60)) {
            let p = sign_flip_test(&differences);
            prop_assert!(p > 0.0 && p <= 1.0);
            let turned: Vec<i64> = differences.iter().map(|d| -d).collect();
            let scaled: Vec<i64> = differences.iter().map(|d| 3 * d).collect();
            prop_assert_eq!(p, sign_flip_test(&scaled));
            prop_assert!((p - sign_flip_test(&turned)).abs() < 1e-12);
            if differences.iter().sum::<i64>() == 0 {
                prop_assert!((p - 1.0).abs() < 1e-12);
            }
        }
    }
}
