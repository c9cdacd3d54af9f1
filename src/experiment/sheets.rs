//! Contact sheets: images as training sees them, images that are alike, images whose labels are doubtful.

use crate::config::{AugmentSettings, Settings};
use crate::data::audit::{Examination, Twins};
use crate::data::decode::{DecodeOptions, decode_file};
use crate::data::transform::{Pipeline, Preprocess, View};
use crate::data::{Dataset, Sample, Split};
use crate::error::{DataError, Result};
use crate::probe::Suspect;
use crate::report::plots::{Sheet, SheetRow, Thumbnail, save_sheet};
use crate::report::{Console, percent};
use crate::system::shown::{are, part_of};
use std::path::Path;

/// Smallest and largest picture of an augmented image, in pixels.
const AUGMENTED_SIDE: (u32, u32) = (96, 256);
/// Pairs of images that are alike.
const TWINS: usize = 40;
/// Side of their pictures, and pairs beside each other.
const TWIN_SIDE: u32 = 200;
const TWIN_COLUMNS: usize = 4;
/// Neighbours beside an image with a doubtful label.
const NEIGHBORS: usize = 5;
/// Side of their pictures.
const SUSPECT_SIDE: u32 = 160;

/// Draws so many training images of each class, first as evaluation sees them, then as many copies as training sees them;
/// below, what each operation does alone.
///
/// # Errors
/// Data errors of files that changed under way; failures of drawing and writing.
pub fn augmented(
    file: &Path,
    settings: &Settings,
    preprocess: Preprocess,
    dataset: &Dataset,
    (copies, per_class): (u64, usize),
) -> Result<()> {
    let decode = DecodeOptions { bit_depth: settings.data.bit_depth };
    let seed = settings.run.seed;
    let training = |augment: &AugmentSettings| Pipeline::training(preprocess, decode, augment, seed);
    let row = |heading: String, pipeline: &Pipeline, index: usize| -> Result<SheetRow> {
        let thumbnails = augmentations(&dataset.samples[index], index, preprocess, pipeline, copies, decode)?;
        Ok(SheetRow { heading, thumbnails })
    };
    let chosen = chosen(dataset, seed, per_class);
    let all = training(&settings.augment);
    let mut rows = Vec::new();
    for &index in &chosen {
        let sample = &dataset.samples[index];
        rows.push(row(format!("{}: {}", dataset.classes[sample.label], sample.name), &all, index)?);
    }
    for ((name, alone), &index) in settings.augment.alone().iter().zip(chosen.iter().cycle()) {
        rows.push(row(format!("{name} alone, on every image"), &training(alone), index)?);
    }
    let size = preprocess.geometry.image_size;
    let side = size.longer() as u32;
    let title = format!("{size} pixels, augmented as in training, seed {seed}");
    save_sheet(file, &Sheet { title, side: side.clamp(AUGMENTED_SIDE.0, AUGMENTED_SIDE.1), columns: 1, rows })
}

/// An image without and with augmentation.
fn augmentations(
    sample: &Sample,
    index: usize,
    preprocess: Preprocess,
    training: &Pipeline,
    count: u64,
    decode: DecodeOptions,
) -> Result<Vec<Thumbnail>> {
    let failed = |error| DataError::invalid(format!("{:?} {error}", sample.name), "run the check again");
    let image = decode_file(&sample.path, decode).map_err(failed)?;
    let view = |epoch| View { epoch, sample: index as u64 };
    let plain = Pipeline::evaluation(preprocess, decode).picture(&image, view(0)).map_err(failed)?;
    let mut thumbnails = vec![Thumbnail { image: plain, caption: "as it is".into() }];
    for epoch in 0..count {
        let image = training.picture(&image, view(epoch)).map_err(failed)?;
        thumbnails.push(Thumbnail { image, caption: format!("epoch {}", epoch + 1) });
    }
    Ok(thumbnails)
}

/// Training images of each class, evenly spread over its list; another seed starts elsewhere.
fn chosen(dataset: &Dataset, seed: u64, per_class: usize) -> Vec<usize> {
    let of_class = |label: usize| {
        let mut images = dataset.indices(Split::Train);
        images.retain(|&index| dataset.samples[index].label == label);
        let (n, count) = (images.len(), per_class.min(images.len()));
        let start = (seed % n.max(1) as u64) as usize;
        (0..count).map(|i| images[(start + i * n / count) % n]).collect::<Vec<_>>()
    };
    (0..dataset.classes.len()).flat_map(of_class).collect()
}

/// Draws pairs that are alike side by side.
///
/// # Errors
/// When the file cannot be written.
pub fn twins(
    file: &Path,
    found: &Examination,
    pairs: &[Twins],
    decode: DecodeOptions,
    console: &Console,
) -> Result<()> {
    if pairs.is_empty() {
        console.info("no duplicates were found: there is no sheet to draw");
        return Ok(());
    }
    let samples = &found.dataset.samples;
    let rows = pairs.iter().take(TWINS).map(|pair| {
        let heading = match pair.likeness {
            None => "the same file".into(),
            Some(near) => {
                let relative = near.relative_distance.map(|share| format!(", distance {}", percent(share)));
                format!("correlation {:.3}{}", near.correlation, relative.unwrap_or_default())
            }
        };
        let thumbnail = |index: usize| thumbnail(&samples[index], &found.dataset.classes, decode);
        SheetRow { heading, thumbnails: [pair.first, pair.second].into_iter().filter_map(thumbnail).collect() }
    });
    let title = format!("{} that {} alike", part_of(pairs.len().min(TWINS), pairs.len(), "pair"), are(pairs.len()));
    save_sheet(file, &Sheet { title, side: TWIN_SIDE, columns: TWIN_COLUMNS, rows: rows.collect() })
}

/// Draws the `top` images with doubtful labels, each beside its nearest others.
///
/// # Errors
/// When the file cannot be written.
pub fn suspects(
    file: &Path,
    dataset: &Dataset,
    found: &[Suspect],
    top: usize,
    decode: DecodeOptions,
    console: &Console,
) -> Result<()> {
    if found.is_empty() || top == 0 {
        let why = if found.is_empty() { "no label is suspicious" } else { "--top 0 lists none" };
        console.info(format!("{why}: there is no sheet to draw"));
        return Ok(());
    }
    let rows = found.iter().take(top).map(|suspect| {
        let sample = &dataset.samples[suspect.sample];
        let [label, suggested] = [sample.label, suspect.suggested].map(|class| &dataset.classes[class]);
        let shown = std::iter::once(suspect.sample).chain(suspect.neighbors.iter().take(NEIGHBORS).copied());
        SheetRow {
            heading: format!(
                "{}: labelled {label}, looks like {suggested} ({})",
                sample.name,
                percent(suspect.confidence)
            ),
            thumbnails: shown.filter_map(|i| thumbnail(&dataset.samples[i], &dataset.classes, decode)).collect(),
        }
    });
    let title = format!("suspicious labels ({} of {}), and the nearest images", top.min(found.len()), found.len());
    save_sheet(file, &Sheet { title, side: SUSPECT_SIDE, columns: 1, rows: rows.collect() })
}

/// A picture with its class, split and name; none when the file is no longer there.
fn thumbnail(sample: &Sample, classes: &[String], decode: DecodeOptions) -> Option<Thumbnail> {
    let image = decode_file(&sample.path, decode).ok()?;
    let file = sample.name.rsplit('/').next().unwrap_or(&sample.name);
    Some(Thumbnail { image, caption: format!("{}, {}: {file}", classes[sample.label], sample.split) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::two_classes;

    #[test]
    fn every_class_is_shown_and_the_seed_chooses() {
        let (_root, dataset) = two_classes(5);
        assert_eq!(chosen(&dataset, 0, 2), [0, 2, 5, 7]);
        assert_eq!(chosen(&dataset, 4, 2), [4, 1, 9, 6]);
        assert_eq!(chosen(&dataset, 3, 9).len(), 10, "there are only five of each");
        assert!(chosen(&Dataset::default(), 1, 2).is_empty());
    }
}
