use super::*;
use proptest::prelude::*;

const NAMES: [&str; 4] = ["knn", "probe", "partial", "full"];

/// (score, half the interval, operations) of each.
fn candidates(rows: &[(f64, f64, f64)]) -> Vec<StrategyScore<'static>> {
    let candidate = |(&(score, half, operations), name): (&(f64, f64, f64), &'static str)| StrategyScore {
        name,
        score,
        interval: Some([score - half, score + half]),
        operations,
        trainable: 0,
        formats: 3,
        tells: false,
    };
    rows.iter().zip(NAMES).map(candidate).collect()
}

fn advice(rows: &[(f64, f64, f64)], target: Option<f64>, p: f64) -> Recommendation {
    of_candidates(&candidates(rows), target, p)
}

fn of_candidates(candidates: &[StrategyScore<'_>], target: Option<f64>, p: f64) -> Recommendation {
    let measure = Measure::Accuracy;
    let (left_out, weighable) = (&[], true);
    let recommender = Recommender { candidates, left_out, measure, chance: 0.4, weighable, p_value: &|_, _| p };
    recommender.recommend(target)
}

fn strategy(found: &Recommendation) -> &str {
    found.strategy.as_deref().unwrap()
}

/// One image of nine right or wrong: the interval of the cheaper one ends below 100 %.
#[test]
fn a_perfect_score_can_be_equalled() {
    let rows = [(0.97, 0.02, 1.0), (1.0, 0.0, 60.0)];
    assert_eq!(strategy(&advice(&rows, None, 1.0)), "knn");
    assert_eq!(strategy(&advice(&rows, None, 0.01)), "probe");
}

#[test]
fn the_cheapest_within_noise_is_taken() {
    let rows = [(0.60, 0.05, 1.0), (0.70, 0.06, 2.0), (0.72, 0.06, 30.0), (0.74, 0.06, 90.0)];
    let found = advice(&rows, None, 0.2);
    assert_eq!((strategy(&found), found.best.as_deref()), ("probe", Some("full")));
    assert!(found.sentence.starts_with("no strategy is better than probe beyond noise"), "{}", found.sentence);
    assert!(found.sentence.contains("p ≥ 0.400"), "two rivals are two chances: {}", found.sentence);
}

#[test]
fn of_two_that_compute_as_much_the_better_one_is_taken() {
    let found = advice(&[(0.65, 0.09, 4.7), (0.70, 0.09, 4.8), (0.73, 0.08, 12.0)], None, 0.3);
    assert_eq!(strategy(&found), "probe");
}

#[test]
fn a_difference_that_pairs_show_is_not_kept_back() {
    let found = advice(&[(0.70, 0.06, 2.0), (0.74, 0.06, 90.0)], None, 0.002);
    assert_eq!(strategy(&found), "knn");
    assert!(found.sentence.contains("probe is better by 4.0 points"), "{}", found.sentence);
}

#[test]
fn the_best_is_taken_where_nothing_cheaper_comes_near() {
    let found = advice(&[(0.60, 0.02, 2.0), (0.90, 0.03, 90.0)], None, 0.0);
    assert_eq!(strategy(&found), "probe");
    assert!(found.sentence.contains("the interval of no cheaper one reaches that"), "{}", found.sentence);
    let found = advice(&[(0.90, 0.02, 2.0), (0.80, 0.03, 90.0)], None, 0.0);
    assert!(strategy(&found) == "knn" && found.sentence.contains("and none is cheaper"), "{}", found.sentence);
}

#[test]
fn a_target_is_reached_for_sure_perhaps_or_not() {
    let rows = [(0.80, 0.02, 1.0), (0.90, 0.05, 2.0), (0.95, 0.03, 9.0)];
    for (target, strategy, said) in [
        (0.77, "knn", "reaches the wanted 77.0 % (80.0 %)"),
        (0.88, "probe", "does not exclude less"),
        (0.97, "partial", "does not exclude it"),
        (0.99, "partial", "ends below"),
    ] {
        let found = advice(&rows, Some(target), 1.0);
        assert_eq!(found.strategy.as_deref(), Some(strategy), "{target}");
        assert!(found.sentence.contains(said), "{}", found.sentence);
    }
}

#[test]
fn one_strategy_is_no_choice() {
    let found = advice(&[(0.8, 0.05, 1.0)], None, 1.0);
    assert_eq!(found.strategy, None);
    assert_eq!(found.sentence, "only knn was compared: there is nothing to choose from");
    let (reached, missed) = (advice(&[(0.8, 0.05, 1.0)], Some(0.7), 1.0), advice(&[(0.8, 0.05, 1.0)], Some(0.9), 1.0));
    assert_eq!((reached.strategy.as_deref(), missed.strategy), (Some("knn"), None));
    assert!(reached.sentence.ends_with("knn reaches the wanted 70.0 % (80.0 %)"), "{}", reached.sentence);
    assert!(missed.sentence.contains("No strategy reaches the wanted 90.0 %"), "{}", missed.sentence);
    let guessed = advice(&[(0.42, 0.05, 1.0)], None, 1.0);
    assert!(guessed.strategy.is_none() && guessed.sentence.contains("naming the commonest"), "{}", guessed.sentence);
}

#[test]
fn a_tie_is_called_one_and_goes_to_what_can_be_exported() {
    let mut rows = candidates(&[(0.70, 0.06, 1.0), (0.70, 0.06, 1.05), (0.60, 0.01, 9.0)]);
    rows[0].formats = 0;
    let found = of_candidates(&rows, None, 1.0);
    assert_eq!(strategy(&found), "probe");
    assert_eq!(
        found.sentence,
        "probe and knn score highest (70.0 %), and none is cheaper: take probe; knn scores the same and can be \
         exported to fewer formats"
    );
    // Not where it costs more, nor where the other one is better.
    rows[1].operations = 2.0;
    let found = of_candidates(&rows, None, 1.0);
    assert_eq!(strategy(&found), "knn");
    assert!(found.sentence.ends_with("take knn; probe scores the same, for more work"), "{}", found.sentence);
    (rows[1].operations, rows[0].score) = (1.05, 0.71);
    assert_eq!(strategy(&of_candidates(&rows, None, 1.0)), "knn");
    // Below the best, and for a target.
    (rows[0].score, rows[2].score) = (0.70, 0.72);
    for target in [None, Some(0.65)] {
        let found = of_candidates(&rows, target, 1.0);
        assert_eq!((strategy(&found), found.best.as_deref()), ("probe", Some("partial")));
        let tie = "; knn scores the same and can be exported to fewer formats";
        assert!(found.sentence.ends_with(tie), "{}", found.sentence);
    }
}

#[test]
fn guessing_is_called_guessing() {
    let rows = [(0.41, 0.05, 1.0), (0.43, 0.05, 2.0)];
    assert_eq!(advice(&rows, None, 1.0).strategy, None, "nothing is worth taking");
    for (target, said) in [
        (None, "beyond noise; probe scores highest with 43.0 %. Try"),
        (Some(0.4), "43.0 %, no less than the wanted 40.0 %, which guessing reaches. Try"),
        (Some(0.42), "43.0 %, no less than the wanted 42.0 %. Try"),
        (Some(0.9), "43.0 %, less than the wanted 90.0 %. Try"),
    ] {
        let found = advice(&rows, target, 1.0);
        assert!(found.sentence.contains("always naming the commonest class (40.0 %)"), "{}", found.sentence);
        assert!(found.sentence.contains(said), "{}", found.sentence);
    }
}

/// 3 % defects that no answer names: the order of the scores may tell them all the same.
#[test]
fn a_ranking_is_not_called_guessing() {
    let mut candidates = candidates(&[(0.5, 0.1, 1.0), (0.52, 0.1, 2.0)]);
    candidates[0].tells = true;
    let (candidates, left_out, measure) = (candidates.as_slice(), &[], Measure::BalancedAccuracy);
    let sentence = |weighable| {
        let found = Recommender { candidates, left_out, measure, chance: 0.5, weighable, p_value: &|_, _| 1.0 };
        let found = found.recommend(None);
        assert_eq!((strategy(&found), found.best.as_deref()), ("knn", Some("probe")), "the one that ranks");
        found.sentence
    };
    let weighed = sentence(false);
    assert!(!weighed.contains("rare classes") && weighed.contains("judge by score"), "{weighed}");
    let sentence = sentence(true);
    assert!(sentence.starts_with("by balanced accuracy, no strategy answers better than"), "{sentence}");
    assert!(sentence.contains("The order of the scores (AUROC) of knn tells the classes"), "{sentence}");
    assert!(sentence.contains("judge by score") && !sentence.contains("another backbone"), "{sentence}");
}

proptest! {
    #[test]
    fn what_is_recommended_reaches_the_best_and_nothing_cheaper_does(
        rows in prop::collection::vec((0.5..0.95f64, 0.0..0.08f64, 0.1..100.0f64), 2..=4), p in 0.0..1.0f64,
    ) {
        let found = advice(&rows, None, p);
        let at = NAMES.iter().position(|name| *name == strategy(&found)).unwrap();
        let best = rows.iter().map(|row| row.0).fold(0.0, f64::max);
        prop_assert!(rows[at].0 + rows[at].1 >= best);
        let reaching = rows.iter().filter(|row| row.0 + row.1 >= best);
        prop_assert!(reaching.clone().all(|row| SAME_WORK * row.2 >= rows[at].2));
        prop_assert!(reaching.clone().all(|row| row.2 > rows[at].2 || row.0 <= rows[at].0));
    }
}
