//! Groups that the names of images suggest: all photographs of `part17`, `patient 3`, `roll-0042`.

use crate::data::{Dataset, Sample, Split};
use std::collections::{BTreeMap, BTreeSet};

/// What the number behind it counts, when several images may show the same one.
const WORDS: [&str; 27] = [
    "part", "patient", "pat", "subject", "subj", "lot", "batch", "roll", "board", "panel", "wafer", "sample", "serial",
    "sn", "case", "piece", "unit", "plant", "person", "specimen", "coil", "slide", "video", "vid", "clip", "sequence",
    "seq",
];

/// The share of the images whose name must say a group.
const COVERED: f64 = 0.9;
/// The fewest groups that can be dealt to splits.
const FEWEST: usize = 6;
/// The fewest images of a group, on average, that make it one.
const SHARED: f64 = 1.5;

/// Groups by the names of images.
pub(super) struct Suggested {
    /// The group of each image that has one. Where the data names a split of its own, only images of groups that lie
    /// wholly in it have one there.
    pub of: BTreeMap<String, String>,
    /// How many groups lie in two splits that the data names.
    pub parted: usize,
}

/// What the names of the images suggest among which splits are drawn; none when they do not suggest any, or hardly any
/// image shares its group.
pub(super) fn suggested(dataset: &Dataset) -> Option<Suggested> {
    let (pool, others): (Vec<&Sample>, Vec<&Sample>) =
        dataset.samples.iter().partition(|sample| settled(dataset, sample).is_none());
    let named = !dataset.named.is_empty();
    let grouped = |samples: &[&Sample]| -> BTreeMap<String, String> {
        samples.iter().filter_map(|sample| Some((sample.name.clone(), group(&sample.name, named)?))).collect()
    };
    let (mut of, mut elsewhere) = (grouped(&pool), grouped(&others));
    let different: BTreeSet<String> = of.values().cloned().collect();
    let covered = of.len() as f64 >= COVERED * pool.len() as f64;
    let shared = of.len() as f64 >= SHARED * different.len() as f64;
    let parted = elsewhere.values().filter(|group| different.contains(*group)).collect::<BTreeSet<_>>().len();
    elsewhere.retain(|_, group| !different.contains(group));
    of.extend(elsewhere);
    (covered && shared && different.len() >= FEWEST).then_some(Suggested { of, parted })
}

/// The split of an image that the data names and nothing is drawn from.
pub(super) fn settled(dataset: &Dataset, sample: &Sample) -> Option<Split> {
    Some(sample.split).filter(|split| *split != Split::Train && dataset.named.contains(split))
}

/// The first word of [`WORDS`] with the number behind it, as in `part17` for `scratch/Part_17-b.png`. The first folder is
/// the class, but for those of a split above it where these are `named`.
fn group(name: &str, named: bool) -> Option<String> {
    let mut below = name;
    while let Some((_, rest)) = below.split_once('/').filter(|(folder, _)| named && Split::parse(folder).is_some()) {
        below = rest;
    }
    let below_class = below.split_once('/').map_or(below, |(_, rest)| rest).to_lowercase();
    let runs = runs(&below_class);
    let mut pairs = runs.windows(2);
    pairs.find_map(|pair| match pair {
        [word, number] if WORDS.contains(word) && is_number(number) => Some(format!("{word}{number}")),
        _ => None,
    })
}

/// Runs of letters and of digits, without what is between them.
fn runs(text: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut start = 0;
    let kind = |c: char| (c.is_alphabetic(), c.is_ascii_digit());
    let mut last = (false, false);
    for (at, c) in text.char_indices() {
        if kind(c) != last {
            runs.push(&text[start..at]);
            (start, last) = (at, kind(c));
        }
    }
    runs.push(&text[start..]);
    runs.retain(|run| run.starts_with(char::is_alphanumeric));
    runs
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::sample;

    #[test]
    fn names_say_their_group_or_do_not() {
        for (name, expected) in [
            ("scratch/Part_17-b.png", Some("part17")),
            ("good/patient3/0001.png", Some("patient3")),
            ("good/2024_roll-0042_03.png", Some("roll0042")),
            ("good/0001.png", None),
            ("part7/0001.png", None),
            ("good/partial_1.png", None),
        ] {
            assert_eq!(group(name, false).as_deref(), expected, "{name}");
        }
        for (name, expected) in [
            ("train/part7/0001.png", None),
            ("seg_train/seg_train/good/video2_frame0113.png", Some("video2")),
            ("train/train/part3.png", Some("part3")),
        ] {
            assert_eq!(group(name, true).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn few_images_of_many_parts_are_no_groups() {
        let dataset = |per_part: usize| Dataset {
            samples: (0..24).map(|n| sample(&format!("good/part{}_{n}.png", n / per_part), 0, Split::Train)).collect(),
            ..Dataset::default()
        };
        assert_eq!(suggested(&dataset(3)).unwrap().of.len(), 24);
        assert!(suggested(&dataset(1)).is_none() && suggested(&dataset(12)).is_none());
    }
}
