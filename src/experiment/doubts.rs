//! What speaks against a score: images that are no longer those of the run, or that its model has seen.

use super::saved::SavedRun;
use super::score::{SplitScore, write_scores};
use crate::data::audit::Finding;
use crate::data::{Dataset, Sample, Split, SplitRow, read_splits_csv};
use crate::error::Result;
use crate::features::image_key;
use crate::metrics::{Doubt, DoubtKind};
use crate::report::{Console, RunRecord};
use crate::system::digest::hex;
use crate::system::shown::{agree, are, part_of};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What speaks against the score of other images, wherever they lie: they are known by their files, or by their pixels
/// where these are in other files.
///
/// # Errors
/// When the splits of the run cannot be read.
pub fn doubts_of_others(run: &SavedRun, found: &[Finding], console: &Console) -> Result<Vec<Doubt>> {
    let rows = read_splits_csv(&run.folder.join("splits.csv"))?;
    if rows.iter().all(|row| row.pixels.is_empty()) {
        console.info(
            "the run was made by an older version, without sums of its images' pixels: only files with the same bytes as its \
             own were looked for",
        );
    }
    let scored: Vec<(String, String)> = found.iter().map(|image| (hex(&image.sha), image.pixels.text())).collect();
    Ok(of_others(&rows, &scored, &fitted_on(&run.record)))
}

/// What speaks against the score of a split of the run's own images.
///
/// # Errors
/// When an image or the splits of the run cannot be read.
pub fn doubts(run: &SavedRun, dataset: &Dataset, split: Split) -> Result<Vec<Doubt>> {
    let rows = read_splits_csv(&run.folder.join("splits.csv"))?;
    let scored: Vec<&Sample> = dataset.samples.iter().filter(|sample| sample.split == split).collect();
    let paths: Vec<&Path> = scored.iter().map(|sample| sample.path.as_path()).collect();
    let keys = run.session.workers.map_on_cpu(paths, image_key);
    let sums: Vec<String> = keys.into_iter().map(|key| Ok(hex(&key?))).collect::<Result<_>>()?;
    let fitted = fitted_on(&run.record);
    let named: Vec<(&str, &str)> =
        scored.iter().map(|sample| sample.name.as_str()).zip(sums.iter().map(String::as_str)).collect();
    Ok(of_own(&rows, &named, split, &fitted))
}

/// Writes what a run scored at its end, with what speaks against it, which goes into its record as well; all else stands there
/// already.
///
/// # Errors
/// When the splits of the run cannot be read, or the scores not written.
pub fn write_first(folder: &Path, dataset: &Dataset, record: &mut RunRecord, scores: &mut [SplitScore]) -> Result<()> {
    let rows = read_splits_csv(&folder.join("splits.csv"))?;
    let fitted = fitted_on(record);
    for evaluation in scores.iter_mut().map(|score| &mut score.evaluation) {
        let split = Split::ALL.into_iter().find(|split| split.name() == evaluation.split);
        evaluation.doubts = split.and_then(|split| copied(&rows, split, &fitted)).into_iter().collect();
    }
    record.doubts = scores.iter().flat_map(|score| score.evaluation.doubts.clone()).collect();
    write_scores(folder, dataset, scores)
}

/// The splits that a model was fitted on.
fn fitted_on(record: &RunRecord) -> Vec<Split> {
    match &record.probe {
        Some(probe) => probe.fitted_on.clone(),
        None if record.trainable_parameters > 0 => vec![Split::Train],
        // Zero-shot.
        None => Vec::new(),
    }
}

/// The doubts about a split of the run: pairs of name and sum, beside those of its rows.
fn of_own(rows: &[SplitRow], scored: &[(&str, &str)], split: Split, fitted: &[Split]) -> Vec<Doubt> {
    let then: BTreeMap<&str, &str> =
        rows.iter().filter(|row| !row.sha256.is_empty()).map(|row| (row.path.as_str(), row.sha256.as_str())).collect();
    let changed: Vec<&str> = scored
        .iter()
        .filter(|(name, sum)| then.get(name).is_some_and(|known| known != sum))
        .map(|(name, _)| *name)
        .collect();
    let mut doubts = Vec::new();
    if let Some(first) = changed.first() {
        let (images, n) = (changed.len(), scored.len());
        let sentence = format!(
            "{} {} not the same {} as at the time of the run ({first:?} is the first): this is the score of what lies there \
             now",
            part_of(images, n, &format!("{split} image")),
            are(images),
            agree(images, "file", "files")
        );
        doubts.push(Doubt { kind: DoubtKind::Changed, images, sentence });
    }
    if fitted.contains(&split) {
        let sentence = format!("the model was fitted on the {split} images: this is no estimate of its accuracy");
        doubts.push(Doubt { kind: DoubtKind::TrainedOn, images: scored.len(), sentence });
    }
    doubts.extend(copied(rows, split, fitted));
    doubts
}

/// That images of a split show the pixels of others which the model was fitted or chosen on; a model that was fitted on none
/// remembers none.
fn copied(rows: &[SplitRow], split: Split, fitted: &[Split]) -> Option<Doubt> {
    let seen = |of: Split| of != split && !fitted.is_empty() && (fitted.contains(&of) || of == Split::Val);
    let known = rows.iter().filter(|row| seen(row.split) && !row.pixels.is_empty());
    let pixels: BTreeSet<&str> = known.map(|row| row.pixels.as_str()).collect();
    let scored: Vec<&SplitRow> = rows.iter().filter(|row| row.split == split).collect();
    let images = scored.iter().filter(|row| pixels.contains(row.pixels.as_str())).count();
    let sentence = format!(
        "{} {} the same pixels as images that the model was fitted or chosen on, in other files: the score is partly one of \
         memory",
        part_of(images, scored.len(), &format!("{split} image")),
        agree(images, "shows", "show")
    );
    (images > 0).then_some(Doubt { kind: DoubtKind::Copied, images, sentence })
}

/// The doubts about any other images, given as pairs of the checksum of a file and that of its pixels.
fn of_others(rows: &[SplitRow], scored: &[(String, String)], fitted: &[Split]) -> Vec<Doubt> {
    // How many there are, and how many of them are other files, in words.
    let among = |wanted: &dyn Fn(Split) -> bool| {
        let known = rows.iter().filter(|row| wanted(row.split));
        let (files, pixels): (BTreeSet<&str>, BTreeSet<&str>) =
            known.map(|row| (row.sha256.as_str(), row.pixels.as_str())).unzip();
        let same = scored.iter().filter(|(sum, _)| files.contains(sum.as_str())).count();
        let all = scored.iter().filter(|(sum, sight)| files.contains(sum.as_str()) || pixels.contains(sight.as_str()));
        let all = all.count();
        let copies = match all - same {
            0 => String::new(),
            copies => format!(", {copies} of them as other files with the same pixels"),
        };
        (all, copies)
    };
    let n = scored.len();
    let (trained, copies) = among(&|split| fitted.contains(&split));
    let (chosen, copies_chosen) = among(&|split| split == Split::Val && !fitted.contains(&split));
    let mut doubts = Vec::new();
    if trained > 0 {
        let sentence = format!(
            "{} {} among those that the model was fitted on{copies}: a score of what it has seen is no \
             estimate of its accuracy",
            part_of(trained, n, "image"),
            are(trained)
        );
        doubts.push(Doubt { kind: DoubtKind::TrainedOn, images: trained, sentence });
    }
    if chosen > 0 {
        let what = if fitted.is_empty() {
            ("its probabilities were calibrated", "what is said of these")
        } else {
            ("it was chosen", "the score")
        };
        let sentence = format!(
            "{} {} among the validation images of the run, on which {}{copies_chosen}: {} is a little too good",
            part_of(chosen, n, "image"),
            are(chosen),
            what.0,
            what.1
        );
        doubts.push(Doubt { kind: DoubtKind::ChosenOn, images: chosen, sentence });
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<SplitRow> {
        let row = |(path, split, sum): (&str, Split, &str)| SplitRow {
            path: path.into(),
            split,
            group: String::new(),
            sha256: sum.into(),
            pixels: sum.to_uppercase(),
        };
        [
            ("1", Split::Train, "a"),
            ("2", Split::Train, "b"),
            ("3", Split::Val, "c"),
            ("4", Split::Test, "d"),
            ("5", Split::Test, "e"),
        ]
        .map(row)
        .into()
    }

    fn found(doubts: &[Doubt]) -> Vec<(DoubtKind, usize)> {
        doubts.iter().map(|doubt| (doubt.kind, doubt.images)).collect()
    }

    #[test]
    fn own_images_are_compared_by_name() {
        let (rows, train) = (rows(), [Split::Train]);
        assert!(of_own(&rows, &[("4", "d"), ("5", "e")], Split::Test, &train).is_empty());
        let changed = of_own(&rows, &[("4", "x"), ("5", "e")], Split::Test, &train);
        assert_eq!(found(&changed), [(DoubtKind::Changed, 1)]);
        assert!(changed[0].sentence.starts_with("1 of 2 test images is not the same file"), "{changed:?}");
        let refitted = of_own(&rows, &[("3", "c")], Split::Val, &[Split::Train, Split::Val]);
        assert_eq!(found(&refitted), [(DoubtKind::TrainedOn, 1)]);
        assert!(of_own(&rows, &[("3", "c")], Split::Val, &train).is_empty());
        let copy = SplitRow { pixels: "A".into(), ..rows[3].clone() };
        let copied =
            of_own(&[&rows[..3], &[copy.clone(), rows[4].clone()]].concat(), &[("4", "d")], Split::Test, &train);
        assert_eq!(found(&copied), [(DoubtKind::Copied, 1)]);
        assert!(copied[0].sentence.starts_with("1 of 2 test images shows the same pixels"), "{copied:?}");
        // Zero-shot, nothing is remembered.
        assert!(of_own(&[&rows[..3], &[copy]].concat(), &[("4", "d")], Split::Test, &[]).is_empty());
        // Runs of older versions do not know the sums.
        let unknown: Vec<SplitRow> = rows.into_iter().map(|row| SplitRow { sha256: String::new(), ..row }).collect();
        assert!(of_own(&unknown, &[("4", "x")], Split::Test, &train).is_empty());
    }

    #[test]
    fn other_images_are_known_by_their_content() {
        let (rows, train) = (rows(), [Split::Train]);
        let scored = |sums: &[(&str, &str)]| -> Vec<(String, String)> {
            sums.iter().map(|&(file, pixels)| (file.into(), pixels.into())).collect()
        };
        assert!(of_others(&rows, &scored(&[("d", "D"), ("z", "Z")]), &train).is_empty());
        let seen = scored(&[("a", "A"), ("c", "C"), ("z", "Z")]);
        assert_eq!(found(&of_others(&rows, &seen, &train)), [(DoubtKind::TrainedOn, 1), (DoubtKind::ChosenOn, 1)]);
        let refitted = of_others(&rows, &seen, &[Split::Train, Split::Val]);
        assert_eq!(found(&refitted), [(DoubtKind::TrainedOn, 2)]);
        assert!(refitted[0].sentence.starts_with("2 of 3 images are among those"), "{refitted:?}");
        let calibrated = of_others(&rows, &seen, &[]);
        assert!(calibrated[0].sentence.contains("on which its probabilities were calibrated: "), "{calibrated:?}");
        // The same pixels in another format.
        let copied = of_others(&rows, &scored(&[("a", "A"), ("y", "B"), ("x", "C"), ("w", "D")]), &train);
        assert_eq!(found(&copied), [(DoubtKind::TrainedOn, 2), (DoubtKind::ChosenOn, 1)]);
        assert!(
            copied[0].sentence.contains("fitted on, 1 of them as other files with the same pixels: "),
            "{copied:?}"
        );
        let unknown: Vec<SplitRow> = rows.into_iter().map(|row| SplitRow { pixels: String::new(), ..row }).collect();
        assert!(of_others(&unknown, &scored(&[("y", "B")]), &train).is_empty());
    }
}
