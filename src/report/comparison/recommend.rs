//! Which strategy to take: the cheapest that the numbers cannot tell from the best.

use super::Measure;
use crate::metrics::holm;
use crate::report::percent;
use crate::system::shown::listed;
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
    pub p_value: &'a dyn Fn(&StrategyScore<'_>, &StrategyScore<'_>) -> f64,
}

/// The strategy to take, if there is one, and why.
type Choice<'a> = (Option<&'a StrategyScore<'a>>, String);

impl<'a> Recommender<'a> {
    /// Without a target: the cheapest whose interval reaches the highest score, or that a paired test cannot tell from a
    /// perfect one. With one: the cheapest whose score reaches it, or else the best. Of those that compute no more than the
    /// cheapest, the best. None where there are fewer than two candidates, but the only one if it reaches the target; nor
    /// where none is shown to be better than chance.
    pub fn recommend(&self, target: Option<f64>) -> Recommendation {
        let left_out = self.left_out.join("; ");
        let Some(best) = best(self.candidates.iter().collect()) else {
            let sentence = format!("no strategy can be recommended: {left_out}");
            return Recommendation { strategy: None, best: None, target, sentence };
        };
        let alone = self.candidates.len() == 1;
        let (chosen, found) = match target {
            _ if best.interval.is_some_and(|[low, _]| low <= self.chance) => self.by_chance(best, target),
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
                let alone = match others {
                    [] => format!("only {} was compared: there is nothing to choose from", best.name),
                    _ => format!("only {} could be chosen: {left_out}", best.name),
                };
                if found.is_empty() { alone } else { format!("{alone}. {}", sentence_case(&found)) }
            }
        };
        let worth = chosen.filter(|chosen| !alone || target.is_some_and(|target| chosen.score >= target));
        let strategy = worth.map(|chosen| chosen.name.to_owned());
        Recommendation { strategy, best: Some(best.name.to_owned()), target, sentence }
    }

    /// The cheapest of those that are good enough, among equals the best.
    fn cheapest_of(&self, which: impl Fn(&StrategyScore<'_>) -> bool) -> Option<&'a StrategyScore<'a>> {
        let fit = self.candidates.iter().filter(|candidate| which(candidate)).collect();
        preferred(highest(cheapest(fit), |candidate| candidate.score))
    }

    /// The others of the same score.
    fn level_with(&self, chosen: &StrategyScore<'_>) -> Vec<&'a StrategyScore<'a>> {
        let others = self.candidates.iter().filter(|other| other.name != chosen.name);
        others.filter(|other| other.score == chosen.score).collect()
    }

    /// `knn scores`, or `knn and probe score` where others have the same score.
    fn scores(&self, chosen: &StrategyScore<'_>) -> String {
        let level = self.level_with(chosen);
        scores(&std::iter::once(chosen.name).chain(level.iter().map(|other| other.name)).collect::<Vec<_>>())
    }

    /// Why it is taken and not another one of the same score; nothing where there is none.
    fn tie(&self, taken: &StrategyScore<'_>) -> String {
        let level = self.level_with(taken);
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

    /// Where the best is not shown to be better than chance.
    fn by_chance(&self, top: &StrategyScore<'_>, target: Option<f64>) -> Choice<'a> {
        let chance = percent(self.chance);
        let wanted = target.map_or(String::new(), |target| {
            let (wanted, than) = (percent(target), if top.score < target { "less" } else { "no less" });
            let guessed = if target <= self.chance { ", which guessing reaches" } else { "" };
            format!(", {than} than the wanted {wanted}{guessed}")
        });
        let scores = format!("{} highest with {}{wanted}", self.scores(top), percent(top.score));
        let telling: Vec<&StrategyScore<'_>> = self.candidates.iter().filter(|candidate| candidate.tells).collect();
        let ranking: Vec<&str> = telling.iter().map(|candidate| candidate.name).collect();
        let Some(chosen) = best(telling) else {
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

    fn for_best(&self, top: &'a StrategyScore<'a>) -> Choice<'a> {
        // The interval of a score ends below 100 % after any mistake: a perfect one is compared image by image.
        let reaches = |candidate: &StrategyScore<'_>| {
            candidate.interval.map_or(candidate.score, |[_, high]| high) >= top.score
                || top.score == 1.0 && (self.p_value)(top, candidate) >= SIGNIFICANT
        };
        let chosen = self.cheapest_of(reaches).unwrap_or(top);
        let StrategyScore { name, score, operations, .. } = chosen;
        let (reached, tie) = (percent(*score), self.tie(chosen));
        if chosen.name == top.name {
            let cheaper = self.candidates.iter().any(|candidate| SAME_WORK * candidate.operations < *operations);
            let why = if cheaper { "and the interval of no cheaper one reaches that" } else { "and none is cheaper" };
            return (Some(chosen), format!("{} highest ({reached}), {why}: take {name}{tie}", self.scores(top)));
        }
        let rivals: Vec<&StrategyScore<'_>> =
            self.candidates.iter().filter(|candidate| candidate.score > *score).collect();
        let p_values = holm(&rivals.iter().map(|rival| (self.p_value)(rival, chosen)).collect::<Vec<f64>>());
        let least = p_values.iter().copied().fold(1.0, f64::min);
        let tested = rivals.into_iter().zip(p_values);
        let real: Vec<(&StrategyScore<'_>, f64)> = tested.filter(|(_, p)| *p < SIGNIFICANT).collect();
        let cost = format!("with {} of the work of {}", share(operations / top.operations), top.name);
        let sentence = match best(real.iter().map(|(rival, _)| *rival).collect()) {
            None => format!(
                "no strategy is better than {name} beyond noise (paired tests, {}): take it ({reached}, {cost})",
                p_of(least, "p ≥ ")
            ),
            Some(better) => {
                let p = real.iter().find(|(rival, _)| rival.name == better.name).map_or(1.0, |(_, p)| *p);
                format!(
                    "{name} is the cheapest whose interval reaches the best ({reached}, {cost}), but {} is better by {:.1} points \
                     on the same images (paired test, {}): take that one if the points are worth the work",
                    better.name,
                    100.0 * (better.score - score),
                    p_of(p, "p = ")
                )
            }
        };
        (Some(chosen), format!("{sentence}{tie}"))
    }

    fn for_target(&self, top: &'a StrategyScore<'a>, target: f64) -> Choice<'a> {
        let wanted = percent(target);
        if let Some(chosen) = self.cheapest_of(|candidate| candidate.score >= target) {
            let StrategyScore { name, score, interval, .. } = chosen;
            let doubt = match interval {
                Some([low, _]) if *low >= target => "",
                _ => ", but its interval does not exclude less: test on more images",
            };
            let what = if self.candidates.len() == 1 { "reaches" } else { "is the cheapest that reaches" };
            let (reached, tie) = (percent(*score), self.tie(chosen));
            return (Some(chosen), format!("{name} {what} the wanted {wanted} ({reached}){doubt}{tie}"));
        }
        let doubt = if top.interval.is_some_and(|[_, high]| high >= target) {
            "its interval does not exclude it: test on more images"
        } else {
            "its interval ends below: try a larger backbone, a larger model.image_size or more images"
        };
        let (name, score, tie) = (top.name, percent(top.score), self.tie(top));
        let sentence =
            format!("no strategy reaches the wanted {wanted}; {name} comes nearest with {score}, and {doubt}{tie}");
        (Some(top), sentence)
    }
}

/// Those that compute as much as the one that computes least.
fn cheapest<'a>(among: Vec<&'a StrategyScore<'a>>) -> Vec<&'a StrategyScore<'a>> {
    let least = among.iter().map(|candidate| candidate.operations).fold(f64::INFINITY, f64::min);
    among.into_iter().filter(|candidate| candidate.operations <= SAME_WORK * least).collect()
}

/// Of several that score and compute the same, the one that can be exported to the most formats; then the one that
/// computes a little less, or trains fewer parameters.
fn preferred<'a>(among: Vec<&'a StrategyScore<'a>>) -> Option<&'a StrategyScore<'a>> {
    among.into_iter().min_by(|a, b| {
        b.formats.cmp(&a.formats).then(a.operations.total_cmp(&b.operations)).then(a.trainable.cmp(&b.trainable))
    })
}

/// The one with the highest score, among equals the cheapest.
fn best<'a>(among: Vec<&'a StrategyScore<'a>>) -> Option<&'a StrategyScore<'a>> {
    preferred(cheapest(highest(among, |candidate| candidate.score)))
}

/// Those of the highest score.
pub(super) fn highest<T>(among: Vec<T>, score: impl Fn(&T) -> f64) -> Vec<T> {
    let top = among.iter().map(&score).fold(f64::NEG_INFINITY, f64::max);
    among.into_iter().filter(|one| score(one) == top).collect()
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

#[cfg(test)]
#[path = "recommend_tests.rs"]
mod tests;
