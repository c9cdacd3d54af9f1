//! The contact sheet of augmented images.

use super::CheckArgs;
use crate::config::Settings;
use crate::data::decode::{DecodeOptions, decode_file};
use crate::data::transform::{Pipeline, Preprocess, View};
use crate::data::{Dataset, Split};
use crate::error::{DataError, Result};
use crate::report::plots::{Sheet, SheetRow, Thumbnail, save_sheet};
use std::path::Path;

/// Smallest and largest picture on the sheet, in pixels.
const SIDE: (u32, u32) = (96, 256);

/// Draws some training images of each class: first as evaluation sees them, then as training does.
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
    let plain = Pipeline::evaluation(preprocess, decode);
    let training = Pipeline::training(preprocess, decode, &settings.augment, settings.run.seed);
    let mut rows = Vec::new();
    for sample in chosen(dataset, settings.run.seed, args.per_class as usize) {
        let (name, path) = (&dataset.samples[sample].name, &dataset.samples[sample].path);
        let failed = |error| DataError::invalid(format!("{name:?} {error}"), "run the check again");
        let image = decode_file(path, decode).map_err(failed)?;
        let sample = sample as u64;
        let original = plain.picture(&image, View { epoch: 0, sample }).map_err(failed)?;
        let mut thumbnails = vec![Thumbnail { image: original, caption: "as it is".into() }];
        for epoch in 0..args.copies {
            let image = training.picture(&image, View { epoch, sample }).map_err(failed)?;
            thumbnails.push(Thumbnail { image, caption: format!("epoch {}", epoch + 1) });
        }
        let class = &dataset.classes[dataset.samples[sample as usize].label];
        rows.push(SheetRow { heading: format!("{class}: {name}"), thumbnails });
    }
    let side = preprocess.geometry.image_size as u32;
    let title = format!("{} px, augmented as in training, seed {}", side, settings.run.seed);
    save_sheet(file, &Sheet { title, side: side.clamp(SIDE.0, SIDE.1), rows })
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
