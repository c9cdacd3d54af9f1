//! The contact sheet of augmented images.

use super::CheckArgs;
use crate::config::{AugmentSettings, Settings};
use crate::data::decode::{DecodeOptions, decode_file};
use crate::data::transform::{Pipeline, Preprocess, View};
use crate::data::{Dataset, Sample, Split};
use crate::error::{DataError, Result};
use crate::report::plots::{Sheet, SheetRow, Thumbnail, save_sheet};
use std::path::Path;

/// Smallest and largest picture on the sheet, in pixels.
const SIDE: (u32, u32) = (96, 256);

/// Draws some training images of each class, first as evaluation sees them, then as training does; below, what each
/// operation does alone.
///
/// # Errors
/// Data errors of files that changed under way; failures of drawing and writing.
pub fn draw(
    file: &Path,
    settings: &Settings,
    preprocess: Preprocess,
    dataset: &Dataset,
    args: &CheckArgs,
) -> Result<()> {
    let decode = DecodeOptions { bit_depth: settings.data.bit_depth };
    let seed = settings.run.seed;
    let training = |augment: &AugmentSettings| Pipeline::training(preprocess, decode, augment, seed);
    let row = |heading: String, pipeline: &Pipeline, index: usize| -> Result<SheetRow> {
        let thumbnails = copies(&dataset.samples[index], index, preprocess, pipeline, args.copies, decode)?;
        Ok(SheetRow { heading, thumbnails })
    };
    let chosen = chosen(dataset, seed, args.per_class as usize);
    let all = training(&settings.augment);
    let mut rows = Vec::new();
    for &index in &chosen {
        let sample = &dataset.samples[index];
        rows.push(row(format!("{}: {}", dataset.classes[sample.label], sample.name), &all, index)?);
    }
    for ((name, alone), &index) in settings.augment.alone().iter().zip(chosen.iter().cycle()) {
        rows.push(row(format!("{name} alone, on every image"), &training(alone), index)?);
    }
    let side = preprocess.geometry.image_size as u32;
    let title = format!("{side} pixels, augmented as in training, seed {seed}");
    save_sheet(file, &Sheet { title, side: side.clamp(SIDE.0, SIDE.1), columns: 1, rows })
}

/// An image without and with augmentation.
fn copies(
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
