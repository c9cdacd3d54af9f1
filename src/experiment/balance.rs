//! Whether there are enough images of every class to learn it, and to measure it.

use crate::config::{LossWeights, Sampler, Settings};
use crate::data::{Dataset, Split};
use crate::report::percent;
use crate::system::shown::printable;

/// Training images of the commonest class for one of the rarest, from which accuracy misleads.
const STRONG_IMBALANCE: f64 = 10.0;
/// Images of a class with which its recall is measured at least roughly.
const FEW: usize = 10;
/// Classes that a sentence names.
const NAMED: usize = 5;

/// Warnings, one sentence each.
pub fn warnings(dataset: &Dataset, settings: &Settings) -> Vec<String> {
    imbalance(dataset, settings).into_iter().chain(few(dataset)).collect()
}

fn imbalance(dataset: &Dataset, settings: &Settings) -> Option<String> {
    let counts = dataset.class_counts(Split::Train);
    let (rarest, &least) = counts.iter().enumerate().min_by_key(|(_, n)| **n)?;
    let (commonest, &most) = counts.iter().enumerate().max_by_key(|(_, n)| **n)?;
    let ratio = most as f64 / least.max(1) as f64;
    if ratio < STRONG_IMBALANCE {
        return None;
    }
    let [rarest, commonest] = [rarest, commonest].map(|class| &dataset.classes[class]);
    let share = percent(most as f64 / counts.iter().sum::<usize>() as f64);
    let balanced = settings.train.sampler == Sampler::Balanced || settings.train.class_weights != LossWeights::None;
    let advice = if balanced { "" } else { "; train.class_weights = \"balanced\" lets rare classes count as much" };
    Some(format!(
        "the classes are {ratio:.0} to 1 in training ({commonest:?} {most}, {rarest:?} {least}): always answering \
         {commonest:?} is right in {share}, so judge by balanced accuracy or AUROC{advice}"
    ))
}

/// Classes of which a held-out split has so few images that its score is mostly chance.
fn few(dataset: &Dataset) -> Option<String> {
    let of = |split| {
        let counts = dataset.class_counts(split).into_iter().zip(&dataset.classes);
        counts.filter(|(n, _)| (1..FEW).contains(n)).map(move |(n, class)| (n, split, class))
    };
    let mut found: Vec<(usize, Split, &String)> = of(Split::Val).chain(of(Split::Test)).collect();
    found.sort_by_key(|found| found.0);
    let (least, ..) = found.first()?;
    let mut named: Vec<String> = found
        .iter()
        .take(NAMED)
        .map(|(n, split, class)| format!("{n} of \"{}\" in {split}", printable(class)))
        .collect();
    if found.len() > NAMED {
        named.push(format!("{} more", found.len() - NAMED));
    }
    Some(format!(
        "few images to measure by: {}; one image found or missed moves a recall by {:.0} points",
        named.join(", "),
        100.0 / *least as f64
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::settings;
    use crate::data::testing::sample;

    fn dataset(counts: [[usize; 3]; 2]) -> Dataset {
        let mut dataset = Dataset { classes: vec!["bad".into(), "good".into()], ..Dataset::default() };
        for (label, counts) in counts.into_iter().enumerate() {
            for (split, n) in Split::ALL.into_iter().zip(counts) {
                dataset.samples.extend((0..n).map(|_| sample("a.png", label, split)));
            }
        }
        dataset
    }

    #[test]
    fn thirty_four_to_one_with_five_defects_in_a_split_is_said() {
        let found = warnings(&dataset([[15, 5, 5], [510, 170, 170]]), &settings(&[]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("34 to 1 in training (\"good\" 510, \"bad\" 15)"), "{found:?}");
        assert!(found[0].contains("is right in 97.1 %") && found[0].contains("train.class_weights"), "{found:?}");
        assert!(found[1].contains("5 of \"bad\" in val, 5 of \"bad\" in test"), "{found:?}");
        assert!(found[1].contains("by 20 points"), "{found:?}");
        assert_eq!(warnings(&dataset([[40, 10, 0], [90, 20, 0]]), &settings(&[])), Vec::<String>::new());
        let weighed = settings(&["train.sampler=balanced"]);
        assert!(!warnings(&dataset([[15, 15, 15], [510, 15, 15]]), &weighed)[0].contains("class_weights"));
    }
}
