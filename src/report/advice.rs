//! What the score of a probe means, and what to try next.

use super::percent;
use crate::data::Split;
use crate::metrics::{Evaluation, SelectionMetric, better_than_chance, is_rare, missed_classes, no_better_than_chance};
use crate::system::shown::{are, counted, part_of};

/// What the advice is based on; shares are fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Advice<'a> {
    /// The score that is wanted.
    pub target: Option<f64>,
    /// What the setting was chosen by; one to which classes count alike makes the target one of balanced accuracy.
    pub metric: SelectionMetric,
    /// The scores of the test images, or when there are none of the images that the setting was chosen on.
    pub scored: &'a Evaluation,
    /// Whether the classes counted alike already.
    pub balanced: bool,
    /// The accuracy on the images the probe was fitted on.
    pub train_accuracy: f64,
    /// The accuracy on images it had not seen.
    pub held_out_accuracy: f64,
    /// The name of the setting that was chosen at the edge of its grid.
    pub at_edge: Option<&'static str>,
}

/// Points that unfreezing the last blocks brought over a probe in the recipe this follows: 79.5 to 86.7 %.
const PARTIAL_GAIN: f64 = 0.07;
/// Likewise training everything: 79.5 to 88.1 %.
const FULL_GAIN: f64 = 0.09;
/// The share of a probe's mistakes that this was: 7.2 of 20.5 points.
const PARTIAL_SHARE: f64 = 0.35;
/// Images that have to be answered right instead of wrong, and none the other way round, before the paired test of two
/// strategies calls that more than chance: 2 × 0.5⁶ = 0.03.
const LEAST_SHOWN: f64 = 6.0;
/// From here on a probe is called near the ceiling.
const NEAR_CEILING: f64 = 0.9;
/// A probe this much better on its own images than on others has too few of them.
const OVERFIT_GAP: f64 = 0.15;
/// Mistakes that are better looked at than trained against, at most and as a share of the images.
const FEW_MISTAKES: (usize, f64) = (2, 0.01);

impl Advice<'_> {
    /// A few sentences.
    pub fn sentence(&self) -> String {
        // What classifies everything right cannot be told from what is better.
        let edge = self.at_edge.filter(|_| self.held_out_accuracy < 1.0).map(|setting| {
            format!(
                "; the best {setting} is at the edge of the values that were tried: try others beyond it (probe.{})",
                setting.to_lowercase()
            )
        });
        let chosen = (self.scored.split != Split::Test.name()).then_some(
            "; there are no test images, and the setting was chosen on these: the score is a little too good",
        );
        format!("{}{}{}", self.next_step(), edge.unwrap_or_default(), chosen.unwrap_or_default())
    }

    fn next_step(&self) -> String {
        let scored = self.scored;
        let (accuracy, images, split) = (scored.accuracy, scored.n, scored.split_name());
        let below = accuracy <= scored.majority_baseline;
        if no_better_than_chance(scored) || below && !better_than_chance(scored) {
            return format!("{}{}", chance(scored), self.wanted());
        }
        if let Some(missed) = missed_classes(scored).first() {
            let found = (missed.recall * missed.support as f64).round();
            let auroc = missed.auroc.map_or(String::new(), |auroc| format!(" (AUROC {auroc:.3})"));
            let weigh = if self.balanced { "" } else { "try probe.class_weights = \"balanced\", or " };
            let what = if is_rare(missed, scored) {
                format!("{weigh}judge by score ([inspection] good = \"…\")")
            } else {
                "look at its images and labels in report.html; then a larger model.image_size, probe.features = \"both\" or \
                 strategy.kind = \"partial\""
                    .into()
            };
            let (class, images) = (&missed.class, missed.support);
            let wanted = self.wanted();
            return format!("misses class {class}: {found} of {images} found on {split}{auroc}{wanted}; {what}");
        }
        if let Some(target) = self.target {
            return self.against(target);
        }
        let [low, high] = scored.accuracy_ci95.unwrap_or([0.0, 1.0]);
        // Beyond what so few images may miss it by.
        if self.train_accuracy - accuracy > OVERFIT_GAP && high < self.train_accuracy {
            return "the probe classifies its own images much better than others: more images or fewer features \
                    (probe.features, probe.blocks) before more training"
                .into();
        }
        let mistakes = (images as f64 * (1.0 - accuracy)).round() as usize;
        if mistakes == 0 {
            return format!(
                "{} classified correctly: training cannot improve on that, test on more images",
                if images == 1 {
                    format!("the only {split} image is")
                } else {
                    format!("all {images} {split} images are")
                }
            );
        }
        // Of a rare class few mistakes may be many.
        let balanced = if scored.per_class.iter().any(|class| is_rare(class, scored)) {
            format!(", balanced accuracy {}", percent(scored.balanced_accuracy))
        } else {
            String::new()
        };
        let of_all = part_of(mistakes, images, &format!("{split} image"));
        let wrong = format!("{of_all} {} classified wrongly", are(mistakes));
        let few = mistakes <= FEW_MISTAKES.0 && accuracy >= NEAR_CEILING;
        if few || mistakes as f64 <= FEW_MISTAKES.1 * images as f64 {
            return format!("{wrong}{balanced}: look at them in report.html before any training");
        }
        if PARTIAL_SHARE * (mistakes as f64) < LEAST_SHOWN {
            let ceiling = if accuracy >= NEAR_CEILING { "near the ceiling: " } else { "" };
            return format!(
                "{ceiling}{wrong} (95 %: {} to {} are right){balanced}; fine-tuning usually \
                 avoids about a third of the mistakes, which is less than so few images can show: look at them in \
                 report.html, test on more images, or compare strategies with `vitadapt compare --folds 5`",
                percent(low),
                percent(high)
            );
        }
        "strategy.kind = \"partial\" usually gains some points over this; set probe.target to compare the score with what is \
         needed"
            .into()
    }

    /// What the target is about: the score, its interval and its name where that is not the accuracy.
    fn judged(&self) -> (f64, Option<[f64; 2]>, &'static str) {
        let scored = self.scored;
        if self.metric.counts_classes_alike() {
            (scored.balanced_accuracy, scored.balanced_accuracy_ci95(), " balanced accuracy")
        } else {
            (scored.accuracy, scored.accuracy_ci95, "")
        }
    }

    /// What became of the target where something graver is said; nothing without one.
    fn wanted(&self) -> String {
        let Some(target) = self.target else { return String::new() };
        let (score, _, of) = self.judged();
        let reached = if score >= target { "reached all the same" } else { "not reached" };
        format!("; the wanted {}{of} is {reached} ({})", percent(target), percent(score))
    }

    fn against(&self, target: f64) -> String {
        let (score, interval, of) = self.judged();
        let gap = target - score;
        let wanted = format!("the wanted {}{of}", percent(target));
        if interval.is_some_and(|[low, _]| low >= target) {
            return format!("frozen features reach {wanted}: no fine-tuning is needed");
        }
        if gap <= 0.0 {
            return format!(
                "frozen features reach {wanted}, but the interval does not exclude less: test on more images"
            );
        }
        let short = format!("{:.1} points short of {wanted}", 100.0 * gap);
        if gap <= PARTIAL_GAIN {
            format!("{short}: try strategy.kind = \"partial\" with the last 3 blocks")
        } else if gap <= FULL_GAIN {
            format!("{short}: try strategy.kind = \"full\" with model.head_init = \"probe\"")
        } else {
            format!(
                "{short}, more than fine-tuning usually gains: try a larger backbone, a larger model.image_size or more \
                 images, and look at `vitadapt tsne`"
            )
        }
    }
}

/// What is said of scores that may be chance.
fn chance(scored: &Evaluation) -> String {
    let remedy = "try another backbone, a larger model.image_size or probe.features = \"both\"";
    if scored.accuracy <= scored.majority_baseline && no_better_than_chance(scored) {
        return format!(
            "these features are not shown to tell the classes apart better than always naming the commonest: {remedy}"
        );
    }
    format!(
        "{} on {} is not shown to be better than always naming the commonest ({}): test on more, or {remedy}",
        percent(scored.accuracy),
        counted(scored.n, &format!("{} image", scored.split_name())),
        percent(scored.majority_baseline)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::evaluate;

    /// 'a' and 'b' with so many images; of each the first ones are right. The logits rank them perfectly if `ranked`.
    fn evaluation([a, b]: [usize; 2], [right_a, right_b]: [usize; 2], ranked: bool) -> Evaluation {
        let labels: Vec<usize> = (0..a + b).map(|i| usize::from(i >= a)).collect();
        let logit = |i: usize| match (i >= a, if i >= a { i - a < right_b } else { i < right_a }) {
            (true, true) | (false, false) if !ranked || i >= a => 2.0,
            (true, _) if ranked => -1.0,
            _ => -2.0,
        };
        let logits: Vec<f64> = (0..a + b).flat_map(|i| [0.0, logit(i)]).collect();
        evaluate("test", &logits, &labels, &["a".into(), "b".into()], 1.0, &[]).unwrap()
    }

    fn of(scored: &Evaluation) -> Advice<'_> {
        let metric = SelectionMetric::Accuracy;
        let (train_accuracy, held_out_accuracy) = (0.9, 0.85);
        Advice { target: None, metric, scored, balanced: false, train_accuracy, held_out_accuracy, at_edge: None }
    }

    /// Whether a text is made of these parts in this order; `…` stands for anything.
    fn reads(text: &str, pattern: &str) -> bool {
        let (start, rest) = pattern.split_once('…').unwrap_or((pattern, ""));
        let Some(mut text) = text.strip_prefix(start) else { return false };
        let found = rest.split('…').all(|part| {
            let at = text.find(part);
            text = at.map_or("", |at| &text[at + part.len()..]);
            at.is_some()
        });
        found && (text.is_empty() || pattern.ends_with('…'))
    }

    #[test]
    fn the_next_step_depends_on_the_scores() {
        let (even, missed) = (([100, 100], [90, 90], false), ([60, 60], [60, 20], false));
        let all_right = "images are classified correctly: training cannot improve on that, test on more images";
        let undecided = "is not shown to be better than always naming the commonest";
        for (target, (images, right, ranked), said) in [
            (Some(0.8), even, "…no fine-tuning…"),
            (Some(0.88), even, "…more images…"),
            (Some(0.95), even, "5.0 points short…partial…"),
            (Some(0.98), even, "…\"full\"…"),
            (Some(0.995), even, "…larger backbone…"),
            (None, even, "…probe.target…"),
            (Some(0.7), ([40, 40], [20, 20], false), "…commonest…the wanted 70.0 % is not reached (50.0 %)"),
            (Some(0.6), missed, "misses class b…60.0 % is reached all the same (66.7 %)…"),
            // A class as common as the others is not weighted.
            (None, missed, "misses class b: 20 of 60 found on test…look at its images…"),
            // 3 % defects, all ranked last and most of them found: the accuracy is that of the commonest class and says nothing.
            (
                None,
                ([291, 9], [291, 7], true),
                "2 of 300 test images are classified wrongly, balanced accuracy 88.9 %: look at them in report.html before any \
                 training",
            ),
            (
                None,
                ([291, 9], [291, 0], true),
                "misses class b: 0 of 9 found on test (AUROC 1.000); try probe.class_weights…",
            ),
            // All five are right: nothing speaks for chance, though nothing can speak against it.
            (None, ([3, 2], [3, 2], false), &format!("all 5 test {all_right}")),
            (None, ([30, 30], [30, 30], false), &format!("all 60 test {all_right}")),
            (None, ([12, 12], [8, 8], false), &format!("66.7 % on 24 test images {undecided} (50.0 %)…")),
            (None, ([3, 2], [2, 1], false), &format!("…{undecided}…")),
            (None, ([2, 18], [0, 18], false), &format!("…{undecided}…")),
            // A gain that no test could show is not promised.
            (
                None,
                ([30, 60], [28, 58], false),
                "near the ceiling: 4 of 90 test images are classified wrongly (95 %: 89.0 % to 98.8 % are right)…; fine-tuning usually \
                 avoids about a third of the mistakes…or compare strategies with `vitadapt compare --folds 5`",
            ),
            (None, ([10, 10], [8, 8], false), "4 of 20 test images are classified wrongly…"),
            (None, ([50, 50], [40, 42], false), "…\"partial\" usually gains…"),
        ] {
            let scored = evaluation(images, right, ranked);
            let found = Advice { target, ..of(&scored) }.sentence();
            assert!(reads(&found, said), "{found}\nis not\n{said}");
            assert_eq!(found.contains("class_weights"), said.contains("class_weights"), "{found}");
        }
    }

    /// 3 % defects of which two thirds are found: 99 % accuracy are no 95 % of what matters.
    #[test]
    fn a_target_is_one_of_balanced_accuracy_where_classes_count_alike() {
        let scored = evaluation([291, 9], [291, 6], true);
        for (metric, target, said) in [
            (SelectionMetric::Accuracy, 0.95, "frozen features reach the wanted 95.0 %: no fine-tuning…"),
            (SelectionMetric::BalancedAccuracy, 0.95, "11.7 points short of the wanted 95.0 % balanced accuracy…"),
            // Nine defects say little.
            (SelectionMetric::BalancedAccuracy, 0.8, "…but the interval does not exclude less…"),
        ] {
            let found = Advice { metric, target: Some(target), ..of(&scored) }.sentence();
            assert!(reads(&found, said), "{found}");
        }
    }

    #[test]
    fn a_gap_within_noise_is_no_overfitting() {
        for (images, right, held_out_accuracy, overfits) in [
            ([50, 50], [38, 38], 0.76, true),
            // 24 images say 68 to 97 %.
            ([12, 12], [11, 10], 0.8, false),
            // Before the refit it had fewer images: the test images are what it comes to.
            ([26, 26], [25, 25], 0.8, false),
        ] {
            let scored = evaluation(images, right, false);
            let said = Advice { train_accuracy: 0.96, held_out_accuracy, ..of(&scored) }.sentence();
            assert_eq!(said.contains("much better than others"), overfits, "{said}");
        }
    }

    /// C was chosen where it is judged.
    #[test]
    fn without_test_images_it_is_said_which_ones_these_are() {
        let caveat = "…; there are no test images, and the setting was chosen on these: the score is a little too good";
        for (split, said, caveat) in [
            ("val", "4 of 20 validation images", caveat),
            ("held-out", "4 of 20 held-out images", caveat),
            ("test", "4 of 20 test images", "…or compare strategies with `vitadapt compare --folds 5`"),
        ] {
            let scored = Evaluation { split: split.into(), ..evaluation([10, 10], [8, 8], false) };
            let found = of(&scored).sentence();
            assert!(reads(&found, &format!("{said}{caveat}")), "{found}");
        }
    }

    #[test]
    fn the_edge_of_the_grid_is_told() {
        let scored = evaluation([100, 100], [90, 90], false);
        let said = |held_out_accuracy| {
            Advice { balanced: true, held_out_accuracy, at_edge: Some("C"), ..of(&scored) }.sentence()
        };
        assert!(!said(1.0).contains("edge"), "nothing beyond it is better than all");
        let told = "…the best C is at the edge of the values that were tried: try others beyond it (probe.c)";
        assert!(reads(&said(0.85), told), "{}", said(0.85));
    }
}
