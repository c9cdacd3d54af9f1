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
    /// To how many formats it can be exported.
    pub formats: usize,
    /// Whether the order of its scores tells the classes of the test images apart better than chance.
    pub tells: bool,
}

/// The advice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// The strategy to take; none where there is nothing to choose from.
    pub strategy: Option<String>,
    /// The one with the highest score on the images that it was chosen by; none where none can be chosen.
    pub best: Option<String>,
    /// The score that was wanted.
    pub target: Option<f64>,
    /// Why, with its caveats.
    pub sentence: String,
}

/// Chooses among strategies, with paired tests between them.
pub struct Recommender<'a> {
    /// All that can be chosen.
    pub candidates: &'a [StrategyScore<'a>],
    /// Why others cannot.
    pub left_out: &'a [String],
    /// What the score is.
    pub measure: Measure,
    /// What always naming the commonest class scores.
    pub chance: f64,
    /// Whether rare classes could count for more than they do.
    pub weighable: bool,
    /// The p-value of the paired test between two candidates.
    pub p_value: &'a dyn Fn(usize, usize) -> f64,
}

impl Recommender<'_> {
    /// Without a target: the cheapest whose interval reaches the highest score, or that a paired test cannot tell from a
    /// perfect one. With one: the cheapest whose score reaches it, or else the best. Of those that compute no more than the
    /// cheapest, the best. None where there are fewer than two candidates, but the only one if it reaches the target; nor
    /// where none is shown to be better than chance.
    pub fn recommend(&self, target: Option<f64>) -> Recommendation {
        let name = |index: usize| self.candidates[index].name.to_owned();
        let left_out = self.left_out.join("; ");
        let Some(best) = self.best((0..self.candidates.len()).collect()) else {
            let sentence = format!("no strategy can be recommended: {left_out}");
            return Recommendation { strategy: None, best: None, target, sentence };
        };
        let alone = self.candidates.len() == 1;
        let (chosen, found) = match target {
            _ if self.is_chance(best) => self.chance(best, target),
            Some(target) => self.for_target(best, target),
            None if alone => (None, String::new()),
            None => self.for_best(best),
        };
        let found = match self.measure {
            Measure::BalancedAccuracy if !found.is_empty() => format!("by {}, {found}", self.measure.in_words()),
            _ => found,
        };
        let sentence = match (alone, self.left_out) {
            (false, []) => found,
            (false, _) => format!("{found}. Left out of the choice: {left_out}"),
            (true, others) => {
                let name = self.candidates[best].name;
                let alone = match others {
                    [] => format!("only {name} was compared: there is nothing to choose from"),
                    _ => format!("only {name} could be chosen: {left_out}"),
                };
                if found.is_empty() { alone } else { format!("{alone}. {}", sentence_case(&found)) }
            }
        };
        let reaches = |chosen: usize| target.is_some_and(|target| self.candidates[chosen].score >= target);
        let strategy = chosen.filter(|&chosen| !alone || reaches(chosen)).map(name);
        Recommendation { strategy, best: Some(name(best)), target, sentence }
    }

    /// Those of the highest score.
    fn highest(&self, among: Vec<usize>) -> Vec<usize> {
        let score = |index: usize| self.candidates[index].score;
        let top = among.iter().map(|&index| score(index)).fold(f64::NEG_INFINITY, f64::max);
        among.into_iter().filter(|&index| score(index) == top).collect()
    }

    /// Those that compute as much as the one that computes least.
    fn cheapest(&self, among: Vec<usize>) -> Vec<usize> {
        let work = |index: usize| self.candidates[index].operations;
        let least = among.iter().map(|&index| work(index)).fold(f64::INFINITY, f64::min);
        among.into_iter().filter(|&index| work(index) <= SAME_WORK * least).collect()
    }

    /// Of several that score and compute the same, the one that can be exported to the most formats; then the one that
    /// computes a little less, or trains fewer parameters.
    fn preferred(&self, among: Vec<usize>) -> Option<usize> {
        among.into_iter().min_by(|&a, &b| {
            let (a, b) = (&self.candidates[a], &self.candidates[b]);
            b.formats.cmp(&a.formats).then(a.operations.total_cmp(&b.operations)).then(a.trainable.cmp(&b.trainable))
        })
    }

    /// The one with the highest score, among equals the cheapest.
    fn best(&self, among: Vec<usize>) -> Option<usize> {
        self.preferred(self.cheapest(self.highest(among)))
    }

    /// The cheapest of those that are good enough, among equals the best.
    fn cheapest_of(&self, which: impl Fn(usize) -> bool) -> Option<usize> {
        let fit = (0..self.candidates.len()).filter(|&index| which(index)).collect();
        self.preferred(self.highest(self.cheapest(fit)))
    }

    /// The others of the same score.
    fn level_with(&self, chosen: usize) -> Vec<&StrategyScore<'_>> {
        let same = |index: &usize| *index != chosen && self.candidates[*index].score == self.candidates[chosen].score;
        (0..self.candidates.len()).filter(same).map(|index| &self.candidates[index]).collect()
    }

    /// `knn scores`, or `knn and probe score` where others have the same score.
    fn scores(&self, chosen: usize) -> String {
        let level = self.level_with(chosen);
        let names: Vec<&str> =
            std::iter::once(self.candidates[chosen].name).chain(level.iter().map(|other| other.name)).collect();
        scores(&names)
    }

    /// Why it is taken and not another one of the same score; nothing where there is none.
    fn tie(&self, chosen: usize) -> String {
        let (taken, level) = (&self.candidates[chosen], self.level_with(chosen));
        if level.is_empty() {
            return String::new();
        }
        let all = |is: &dyn Fn(&StrategyScore<'_>) -> bool| level.iter().all(|other| is(other));
        let why = if all(&|other| other.operations > SAME_WORK * taken.operations) {
            ", for more work"
        } else if all(&|other| other.formats < taken.formats) {
            " and can be exported to fewer formats"
        } else if all(&|other| other.operations > taken.operations) {
            ", for a little more work"
        } else if all(&|other| other.trainable > taken.trainable) {
            " and trains more parameters"
        } else {
            ", and is as good a choice"
        };
        let names: Vec<&str> = level.iter().map(|other| other.name).collect();
        match names.as_slice() {
            [name] => format!("; {name} scores the same{why}"),
            _ => format!("; each of {} scores the same{why}", listed(&names, "and")),
        }
    }

    fn is_chance(&self, best: usize) -> bool {
        self.candidates[best].interval.is_some_and(|[low, _]| low <= self.chance)
    }

    fn chance(&self, best: usize, target: Option<f64>) -> (Option<usize>, String) {
        let (chance, score) = (percent(self.chance), self.candidates[best].score);
        let wanted = target.map_or(String::new(), |target| {
            let (wanted, than) = (percent(target), if score < target { "less" } else { "no less" });
            let guessed = if target <= self.chance { ", which guessing reaches" } else { "" };
            format!(", {than} than the wanted {wanted}{guessed}")
        });
        let scores = format!("{} highest with {}{wanted}", self.scores(best), percent(score));
        let telling: Vec<usize> = (0..self.candidates.len()).filter(|&index| self.candidates[index].tells).collect();
        let ranking: Vec<&str> = telling.iter().map(|&index| self.candidates[index].name).collect();
        let Some(chosen) = self.best(telling) else {
            let sentence = format!(
                "no strategy is better than always naming the commonest class ({chance}) beyond noise; {scores}. Try \
                 another backbone, a larger model.image_size or more images"
            );
            return (None, sentence);
        };
        let remedy = if self.weighable {
            "let rare classes count (train.class_weights and probe.class_weights = \"balanced\") or"
        } else {
            "train for longer or on more images, or"
        };
        let sentence = format!(
            "no strategy answers better than always naming the commonest class ({chance}) beyond noise; {scores}. The order \
             of the scores (AUROC) of {} tells the classes of the test images apart all the same: {remedy} judge by score \
             ([inspection] good = \"…\")",
            listed(&ranking, "and")
        );
        (Some(chosen), sentence)
    }

    fn for_best(&self, best: usize) -> (Option<usize>, String) {
        let top = &self.candidates[best];
        // The interval of a score ends below 100 % after any mistake: a perfect one is compared image by image.
        let reaches = |index: usize| {
            let candidate = &self.candidates[index];
            candidate.interval.map_or(candidate.score, |[_, high]| high) >= top.score
                || top.score == 1.0 && (self.p_value)(best, index) >= SIGNIFICANT
        };
        let chosen = self.cheapest_of(reaches).unwrap_or(best);
        let StrategyScore { name, score, operations, .. } = &self.candidates[chosen];
        if chosen == best {
            let cheaper = self.candidates.iter().any(|candidate| SAME_WORK * candidate.operations < *operations);
            let why = if cheaper { "and the interval of no cheaper one reaches that" } else { "and none is cheaper" };
            let sentence = format!("{} highest ({}), {why}: take {name}", self.scores(best), percent(*score));
            return (Some(chosen), format!("{sentence}{}", self.tie(chosen)));
        }
        let rivals: Vec<usize> =
            (0..self.candidates.len()).filter(|&other| self.candidates[other].score > *score).collect();
        let p_values = holm(&rivals.iter().map(|&rival| (self.p_value)(rival, chosen)).collect::<Vec<f64>>());
        let real: Vec<(usize, f64)> =
            rivals.iter().copied().zip(p_values.iter().copied()).filter(|(_, p)| *p < SIGNIFICANT).collect();
        let cost = format!("with {} of the work of {}", share(operations / top.operations), top.name);
        let sentence = match self.best(real.iter().map(|(rival, _)| *rival).collect()) {
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
        (Some(chosen), format!("{sentence}{}", self.tie(chosen)))
    }

    fn for_target(&self, best: usize, target: f64) -> (Option<usize>, String) {
        let wanted = percent(target);
        if let Some(chosen) = self.cheapest_of(|index| self.candidates[index].score >= target) {
            let StrategyScore { name, score, interval, .. } = &self.candidates[chosen];
            let doubt = match interval {
                Some([low, _]) if *low >= target => "",
                _ => ", but its interval does not exclude less: test on more images",
            };
            let reached = percent(*score);
            let what = if self.candidates.len() == 1 { "reaches" } else { "is the cheapest that reaches" };
            let tie = self.tie(chosen);
            return (Some(chosen), format!("{name} {what} the wanted {wanted} ({reached}){doubt}{tie}"));
        }
        let top = &self.candidates[best];
        let (name, score) = (top.name, percent(top.score));
        let doubt = if top.interval.is_some_and(|[_, high]| high >= target) {
            "its interval does not exclude it: test on more images"
        } else {
            "its interval ends below: try a larger backbone, a larger model.image_size or more images"
        };
        let tie = self.tie(best);
        (
            Some(best),
            format!("no strategy reaches the wanted {wanted}; {name} comes nearest with {score}, and {doubt}{tie}"),
        )
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

/// `knn scores`, `knn and probe score`
pub(super) fn scores(names: &[&str]) -> String {
    format!("{} {}", listed(names, "and"), if names.len() == 1 { "scores" } else { "score" })
}

/// The first letter large, unless it begins a name.
pub(super) fn sentence_case(text: &str) -> String {
    match text.split_once(' ') {
        Some(("no", rest)) => format!("No {rest}"),
        Some(("only", rest)) => format!("Only {rest}"),
        Some(("by", rest)) => format!("By {rest}"),
        _ => text.to_owned(),
    }
}

/// `a, b and c`
pub(super) fn listed<T: AsRef<str>>(names: &[T], word: &str) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [before @ .., next, last] => [before, &[&format!("{next} {word} {last}")]].concat().join(", "),
        _ => names.concat(),
    }
}

#[cfg(test)]
#[path = "recommend_tests.rs"]
mod tests;
