//! What the score of a probe means, and what to try next.

use super::percent;

/// The scores that the advice is based on, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Advice {
    /// The accuracy that is wanted.
    pub target: Option<f64>,
    /// On test images, or on held-out ones when there are none.
    pub accuracy: f64,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// The share of the commonest class.
    pub majority: Option<f64>,
    /// On the images the probe was fitted on.
    pub train_accuracy: f64,
    /// On images it had not seen.
    pub held_out_accuracy: f64,
}

/// Points that unfreezing the last blocks brought over a probe in the recipe this follows: 79.5 to 86.7 %.
const PARTIAL_GAIN: f64 = 0.07;
/// Likewise training everything: 79.5 to 88.1 %.
const FULL_GAIN: f64 = 0.09;
/// A probe this much better on its own images than on others has too few of them.
const OVERFIT_GAP: f64 = 0.15;

impl Advice {
    /// One or two sentences.
    pub fn sentence(&self) -> String {
        let by_chance = matches!((self.majority, self.interval), (Some(majority), Some([low, _])) if low <= majority);
        if by_chance {
            return "these features do not tell the classes apart better than always naming the commonest: \
                    try another backbone, a larger model.image_size or probe.features = \"both\""
                .into();
        }
        match self.target {
            Some(target) => self.against(target),
            None if self.train_accuracy - self.held_out_accuracy > OVERFIT_GAP => {
                "the probe classifies its own images much better than others: more images or fewer features \
                 (probe.features, probe.blocks) before more training"
                    .into()
            }
            None => "strategy.kind = \"partial\" usually gains some points over this; set probe.target to compare the \
                     score with what is needed"
                .into(),
        }
    }

    fn against(&self, target: f64) -> String {
        let gap = target - self.accuracy;
        let wanted = percent(target);
        if self.interval.is_some_and(|[low, _]| low >= target) {
            return format!("frozen features reach the wanted {wanted}: no fine-tuning is needed");
        }
        if gap <= 0.0 {
            return format!(
                "frozen features reach the wanted {wanted}, but the interval does not exclude less: test on more images"
            );
        }
        let short = format!("{:.1} points short of the wanted {wanted}", 100.0 * gap);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(target: Option<f64>, accuracy: f64, low: f64) -> String {
        Advice {
            target,
            accuracy,
            interval: Some([low, accuracy + 0.03]),
            majority: Some(0.4),
            train_accuracy: 0.9,
            held_out_accuracy: 0.85,
        }
        .sentence()
    }

    #[test]
    fn the_next_step_depends_on_the_gap() {
        assert!(advice(Some(0.8), 0.9, 0.85).contains("no fine-tuning"));
        assert!(advice(Some(0.88), 0.9, 0.85).contains("more images"));
        assert!(
            advice(Some(0.95), 0.9, 0.85).contains("5.0 points short")
                && advice(Some(0.95), 0.9, 0.85).contains("partial")
        );
        assert!(advice(Some(0.98), 0.9, 0.85).contains("\"full\""));
        assert!(advice(Some(0.99), 0.7, 0.65).contains("larger backbone"));
        assert!(advice(Some(0.5), 0.45, 0.38).contains("commonest"));
        assert!(advice(None, 0.9, 0.85).contains("probe.target"));
    }
}
