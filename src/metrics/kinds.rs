//! How parts of each kind fared where a model only tells sound parts from all others.

use super::ranking::auroc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One kind of part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindScore {
    /// What the data calls it.
    pub kind: String,
    /// Its images.
    pub images: u64,
    /// Those that were not accepted.
    pub rejected: u64,
    /// How well its scores can be told from those of sound parts; none for sound parts themselves.
    pub auroc: Option<f64>,
}

/// A scored part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredPart<'a> {
    /// What the data calls it.
    pub kind: &'a str,
    /// Whether it is sound.
    pub sound: bool,
    /// Higher for defects.
    pub score: f64,
    /// Whether it was accepted.
    pub accepted: bool,
}

/// The kinds in the order of their names.
pub fn kind_scores(parts: &[ScoredPart<'_>]) -> Vec<KindScore> {
    let mut kinds: BTreeMap<&str, Vec<&ScoredPart<'_>>> = BTreeMap::new();
    for part in parts {
        kinds.entry(part.kind).or_default().push(part);
    }
    let score = |(kind, of): (&str, Vec<&ScoredPart<'_>>)| {
        let defects = of.iter().copied().filter(|part| !part.sound);
        let compared: Vec<&ScoredPart<'_>> = parts.iter().filter(|part| part.sound).chain(defects).collect();
        let scores: Vec<f64> = compared.iter().map(|part| part.score).collect();
        let defective: Vec<bool> = compared.iter().map(|part| !part.sound).collect();
        KindScore {
            kind: kind.to_owned(),
            images: of.len() as u64,
            rejected: of.iter().filter(|part| !part.accepted).count() as u64,
            auroc: auroc(&scores, &defective),
        }
    };
    kinds.into_iter().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_held_against_sound_parts() {
        let part = |kind, sound, score| ScoredPart { kind, sound, score, accepted: score < 1.0 };
        let parts = [
            part("good", true, 0.1),
            part("good", true, 1.5),
            part("hole", false, 2.0),
            part("thread", false, 0.5),
            part("thread", false, 0.0),
        ];
        let found = kind_scores(&parts);
        let row = |kind: &str, images, rejected, auroc| KindScore { kind: kind.into(), images, rejected, auroc };
        assert_eq!(found, [row("good", 2, 1, None), row("hole", 1, 1, Some(1.0)), row("thread", 2, 0, Some(0.25))]);
    }
}
