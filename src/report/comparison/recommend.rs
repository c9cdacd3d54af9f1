//! Which strategy to take: the cheapest that the numbers cannot tell from the best.

use super::Measure;
use crate::metrics::holm;
use crate::report::percent;
use serde::Serialize;

/// Below this, a difference is called real.
const SIGNIFICANT: f64 = 0.05;

/// Work that differs by less than this factor is called equal: what is not counted is of that order.
const SAME_WORK: f64 = 1.1;

/// What the choice of a strategy is based on.
#[derive(Debug, Clone, PartialEq)]
pub struct StrategyScore<'a> {
    /// Its name.
    pub name: &'a str,
    /// On the images that it is chosen by.
    pub score: f64,
    /// The 95 % interval of the score.
    pub interval: Option<[f64; 2]>,
    /// Floating-point operations of a run alone.
    pub operations: f64,
    /// Trainable parameters.
    pub trainable: usize,
    /// Whether the order of its scores tells the classes of the test images apart better than chance.
    pub tells: bool,
}

/// The advice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// The strategy to take.
    pub strategy: String,
    /// The one with the highest score on the images that it was chosen by.
    pub best: String,
    /// The score that was wanted.
    pub target: Option<f64>,
    /// Why, with its caveats.
    pub sentence: String,
}

/// Chooses among strategies, with paired tests between them.
pub struct Recommender<'a> {
    /// All of them.
    pub candidates: &'a [StrategyScore<'a>],
    /// What the score is.
    pub measure: Measure,
    /// What always naming the commonest class scores.
    pub chance: f64,
    /// The p-value of the paired test between two candidates.
    pub p_value: &'a dyn Fn(usize, usize) -> f64,
}

impl Recommender<'_> {
    /// Without a target: the cheapest whose interval reaches the highest score, or that a paired test cannot tell from a
    /// perfect one. With one: the cheapest whose score reaches
    /// it, or else the best. Of those that compute no more than the cheapest, the best. None without candidates.
    pub fn recommend(&self, target: Option<f64>) -> Option<Recommendation> {
        let best = self.best(0..self.candidates.len())?;
        let (chosen, sentence) = match target {
            None if self.candidates.len() == 1 => (best, self.alone(best)),
            _ if self.is_chance(best) => (best, self.chance(best)),
            Some(target) => self.for_target(best, target),
            None => self.for_best(best)?,
        };
        let sentence = match self.measure {
            Measure::Accuracy => sentence,
            Measure::BalancedAccuracy => format!("by {}, {sentence}", self.measure.in_words()),
        };
        let name = |index: usize| self.candidates[index].name.to_owned();
        Some(Recommendation { strategy: name(chosen), best: name(best), target, sentence })
    }

    /// The one with the highest score, among equals the cheapest, and of these the one that trains the fewest parameters.
    fn best(&self, among: impl Iterator<Item = usize>) -> Option<usize> {
        let of = |index: usize| &self.candidates[index];
        among.min_by(|&a, &b| {
            let (a, b) = (of(a), of(b));
            let cost = a.operations.total_cmp(&b.operations).then(a.trainable.cmp(&b.trainable));
            b.score.total_cmp(&a.score).then(cost)
        })
    }

    fn cheapest(&self, which: impl Fn(usize) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.candidates.len()).filter(|&index| which(index)).collect();
        let work = |index: usize| self.candidates[index].operations;
        let least = fit.iter().map(|&index| work(index)).reduce(f64::min)?;
        self.best(fit.into_iter().filter(|&index| work(index) <= SAME_WORK * least))
    }

    fn alone(&self, only: usize) -> String {
        format!("only {} is complete: there is nothing to choose from yet", self.candidates[only].name)
    }

    fn is_chance(&self, best: usize) -> bool {
        self.candidates[best].interval.is_some_and(|[low, _]| low <= self.chance)
    }

    fn chance(&self, best: usize) -> String {
        let chance = percent(self.chance);
        let scores =
            format!("{} scores highest with {}", self.candidates[best].name, percent(self.candidates[best].score));
        let ranking: Vec<&str> =
            self.candidates.iter().filter(|candidate| candidate.tells).map(|candidate| candidate.name).collect();
        if ranking.is_empty() {
            return format!(
                "no strategy is better than always naming the commonest class ({chance}) beyond noise; {scores}. Try \
                 another backbone, a larger model.image_size or more images first"
            );
        }
        format!(
            "no strategy answers better than always naming the commonest class ({chance}) beyond noise; {scores}. The order \
             of the scores (AUROC) of {} tells the classes of the test images apart all the same: let rare classes count \
             (train.class_weights and probe.class_weights = \"balanced\") or judge by score ([inspection] good = \"…\")",
            listed(&ranking, "and")
        )
    }

    fn for_best(&self, best: usize) -> Option<(usize, String)> {
        let top = &self.candidates[best];
        // The interval of a score ends below 100 % after any mistake: a perfect one is compared image by image.
        let reaches = |index: usize| {
            let candidate = &self.candidates[index];
            candidate.interval.map_or(candidate.score, |[_, high]| high) >= top.score
                || top.score == 1.0 && (self.p_value)(best, index) >= SIGNIFICANT
        };
        let chosen = self.cheapest(reaches)?;
        let StrategyScore { name, score, operations, .. } = &self.candidates[chosen];
        if chosen == best {
            let cheaper = self.candidates.iter().any(|candidate| SAME_WORK * candidate.operations < *operations);
            let why = if cheaper {
                "and the interval of no cheaper one reaches that"
            } else {
                "and none is cheaper: take it"
            };
            return Some((chosen, format!("{name} scores highest ({}), {why}", percent(*score))));
        }
        let rivals: Vec<usize> =
            (0..self.candidates.len()).filter(|&other| self.candidates[other].score > *score).collect();
        let p_values = holm(&rivals.iter().map(|&rival| (self.p_value)(rival, chosen)).collect::<Vec<f64>>());
        let real: Vec<(usize, f64)> =
            rivals.iter().copied().zip(p_values.iter().copied()).filter(|(_, p)| *p < SIGNIFICANT).collect();
        let cost = format!("with {} of the work of {}", share(operations / top.operations), top.name);
        let sentence = match self.best(real.iter().map(|(rival, _)| *rival)) {
            None => {
                let least = p_values.iter().copied().fold(1.0, f64::min);
                format!(
                    "no strategy is better than {name} beyond noise (paired tests, {}): take it ({}, {cost})",
                    p_of(least, "p ≥ "),
                    percent(*score)
                )
            }
            Some(rival) => {
                let p = real.iter().find(|(index, _)| *index == rival).map_or(1.0, |(_, p)| *p);
                let better = &self.candidates[rival];
                format!(
                    "{name} is the cheapest whose interval reaches the best ({}, {cost}), but {} is better by {:.1} points \
                     on the same images (paired test, {}): take that one if the points are worth the work",
                    percent(*score),
                    better.name,
                    100.0 * (better.score - score),
                    p_of(p, "p = ")
                )
            }
        };
        Some((chosen, sentence))
    }

    fn for_target(&self, best: usize, target: f64) -> (usize, String) {
        let wanted = percent(target);
        if let Some(chosen) = self.cheapest(|index| self.candidates[index].score >= target) {
            let StrategyScore { name, score, interval, .. } = &self.candidates[chosen];
            let doubt = match interval {
                Some([low, _]) if *low >= target => "",
                _ => ", but its interval does not exclude less: test on more images",
            };
            let reached = percent(*score);
            return (chosen, format!("{name} is the cheapest that reaches the wanted {wanted} ({reached}){doubt}"));
        }
        let top = &self.candidates[best];
        let (name, score) = (top.name, percent(top.score));
        let doubt = if top.interval.is_some_and(|[_, high]| high >= target) {
            "its interval does not exclude it: test on more images"
        } else {
            "its interval ends below: try a larger backbone, a larger model.image_size or more images"
        };
        (best, format!("no strategy reaches the wanted {wanted}; {name} comes nearest with {score}, and {doubt}"))
    }
}

/// A share of work in per cent.
fn share(of_work: f64) -> String {
    if of_work < 0.001 { "less than 0.1 %".into() } else { percent(of_work) }
}

/// `p = 0.031`, and `p < 0.001` where that says enough.
fn p_of(p: f64, sign: &str) -> String {
    if p < 0.001 { "p < 0.001".into() } else { format!("{sign}{p:.3}") }
}

/// `a, b and c`
pub(super) fn listed(names: &[&str], word: &str) -> String {
    match names {
        [before @ .., next, last] => [before, &[&format!("{next} {word} {last}")]].concat().join(", "),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
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
            tells: false,
        };
        rows.iter().zip(NAMES).map(candidate).collect()
    }

    fn advice(rows: &[(f64, f64, f64)], target: Option<f64>, p: f64) -> Recommendation {
        let candidates = candidates(rows);
        let measure = Measure::Accuracy;
        Recommender { candidates: &candidates, measure, chance: 0.4, p_value: &|_, _| p }.recommend(target).unwrap()
    }

    /// One image of nine right or wrong: the interval of the cheaper one ends below 100 %.
    #[test]
    fn a_perfect_score_can_be_equalled() {
        let rows = [(0.97, 0.02, 1.0), (1.0, 0.0, 60.0)];
        assert_eq!(advice(&rows, None, 1.0).strategy, "knn");
        assert_eq!(advice(&rows, None, 0.01).strategy, "probe");
    }

    #[test]
    fn the_cheapest_within_noise_is_taken() {
        let rows = [(0.60, 0.05, 1.0), (0.70, 0.06, 2.0), (0.72, 0.06, 30.0), (0.74, 0.06, 90.0)];
        let found = advice(&rows, None, 0.2);
        assert_eq!((found.strategy.as_str(), found.best.as_str()), ("probe", "full"));
        assert!(found.sentence.starts_with("no strategy is better than probe beyond noise"), "{}", found.sentence);
        assert!(found.sentence.contains("p ≥ 0.400"), "two rivals are two chances: {}", found.sentence);
    }

    #[test]
    fn of_two_that_compute_as_much_the_better_one_is_taken() {
        let found = advice(&[(0.65, 0.09, 4.7), (0.70, 0.09, 4.8), (0.73, 0.08, 12.0)], None, 0.3);
        assert_eq!(found.strategy, "probe");
    }

    #[test]
    fn a_difference_that_pairs_show_is_not_kept_back() {
        let found = advice(&[(0.70, 0.06, 2.0), (0.74, 0.06, 90.0)], None, 0.002);
        assert_eq!(found.strategy, "knn");
        assert!(found.sentence.contains("probe is better by 4.0 points"), "{}", found.sentence);
    }

    #[test]
    fn the_best_is_taken_where_nothing_cheaper_comes_near() {
        let found = advice(&[(0.60, 0.02, 2.0), (0.90, 0.03, 90.0)], None, 0.0);
        assert_eq!(found.strategy, "probe");
        assert!(found.sentence.contains("the interval of no cheaper one reaches that"), "{}", found.sentence);
        let found = advice(&[(0.90, 0.02, 2.0), (0.80, 0.03, 90.0)], None, 0.0);
        assert!(found.strategy == "knn" && found.sentence.contains("and none is cheaper"), "{}", found.sentence);
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
            assert_eq!(found.strategy, strategy, "{target}");
            assert!(found.sentence.contains(said), "{}", found.sentence);
        }
    }

    #[test]
    fn one_strategy_is_no_choice() {
        let found = advice(&[(0.8, 0.05, 1.0)], None, 1.0);
        assert!(found.sentence.contains("nothing to choose from"), "{}", found.sentence);
    }

    #[test]
    fn guessing_is_called_guessing() {
        let found = advice(&[(0.41, 0.05, 1.0), (0.43, 0.05, 2.0)], Some(0.4), 1.0);
        assert!(found.sentence.contains("always naming the commonest class (40.0 %)"), "{}", found.sentence);
    }

    /// 3 % defects that no answer names: the order of the scores may tell them all the same.
    #[test]
    fn a_ranking_is_not_called_guessing() {
        let mut candidates = candidates(&[(0.5, 0.1, 1.0), (0.52, 0.1, 2.0)]);
        candidates[0].tells = true;
        let measure = Measure::BalancedAccuracy;
        let found = Recommender { candidates: &candidates, measure, chance: 0.5, p_value: &|_, _| 1.0 }.recommend(None);
        let sentence = found.unwrap().sentence;
        assert!(sentence.starts_with("by balanced accuracy, no strategy answers better than"), "{sentence}");
        assert!(sentence.contains("The order of the scores (AUROC) of knn tells the classes"), "{sentence}");
        assert!(sentence.contains("judge by score") && !sentence.contains("another backbone"), "{sentence}");
    }

    proptest! {
        #[test]
        fn what_is_recommended_reaches_the_best_and_nothing_cheaper_does(
            rows in prop::collection::vec((0.5..0.95f64, 0.0..0.08f64, 0.1..100.0f64), 1..=4), p in 0.0..1.0f64,
        ) {
            let found = advice(&rows, None, p);
            let at = NAMES.iter().position(|name| *name == found.strategy).unwrap();
            let best = rows.iter().map(|row| row.0).fold(0.0, f64::max);
            prop_assert!(rows[at].0 + rows[at].1 >= best);
            let reaching = rows.iter().filter(|row| row.0 + row.1 >= best);
            prop_assert!(reaching.clone().all(|row| SAME_WORK * row.2 >= rows[at].2));
            prop_assert!(reaching.clone().all(|row| row.2 > rows[at].2 || row.0 <= rows[at].0));
        }
    }
}
