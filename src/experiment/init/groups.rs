//! Groups that the names of images suggest: all photographs of `part17`, `patient 3`, `roll-0042`.

use crate::data::Dataset;
use std::collections::{BTreeMap, BTreeSet};

/// What the number behind it counts, when several images may show the same one.
const WORDS: [&str; 22] = [
    "part", "patient", "pat", "subject", "subj", "lot", "batch", "roll", "board", "panel", "wafer", "sample", "serial",
    "sn", "case", "piece", "unit", "plant", "person", "specimen", "coil", "slide",
];

/// The share of the images whose name must say a group.
const COVERED: f64 = 0.9;
/// The fewest groups that can be dealt to splits.
const FEWEST: usize = 6;
/// The fewest images of a group, on average, that make it one.
const SHARED: f64 = 1.5;

/// The group of each image by its name; none when the names do not suggest any, or hardly any image shares its group.
pub(super) fn suggested(dataset: &Dataset) -> Option<BTreeMap<&str, String>> {
    let groups: BTreeMap<&str, String> =
        dataset.samples.iter().filter_map(|sample| Some((sample.name.as_str(), group(&sample.name)?))).collect();
    let different = groups.values().collect::<BTreeSet<_>>().len();
    let covered = groups.len() as f64 >= COVERED * dataset.samples.len() as f64;
    let shared = groups.len() as f64 >= SHARED * different as f64;
    (covered && shared && different >= FEWEST).then_some(groups)
}

/// The first word of [`WORDS`] with the number behind it, as in `part17` for `scratch/Part_17-b.png`. The first folder is
/// the class.
fn group(name: &str) -> Option<String> {
    let below_class = name.split_once('/').map_or(name, |(_, rest)| rest).to_lowercase();
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
    use crate::data::Split;
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
            assert_eq!(group(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn few_images_of_many_parts_are_no_groups() {
        let dataset = |per_part: usize| Dataset {
            samples: (0..24).map(|n| sample(&format!("good/part{}_{n}.png", n / per_part), 0, Split::Train)).collect(),
            ..Dataset::default()
        };
        assert_eq!(suggested(&dataset(3)).unwrap().len(), 24);
        assert!(suggested(&dataset(1)).is_none() && suggested(&dataset(12)).is_none());
    }
}
