//! What is exported of a run, and what the files that were written are held against.

use super::saved::SavedRun;
use crate::data::loader::Batch;
use crate::data::transform::{Bag, Tiles, View};
use crate::data::{Dataset, Split};
use crate::error::{DataError, Result};
use crate::export::{Check, ExportModel};
use crate::features::TiledImages;
use candle_core::{Device, Tensor};
use image::{Rgb, RgbImage};

/// Images on which the files are compared with the model.
const IMAGES: usize = 16;
/// The same for images that are cut into tiles, and how many tiles of each are compared: these few already make the largest
/// inputs of all checks.
const TILED_IMAGES: usize = 2;
const TILES: usize = 80;

/// The model of a run, on the host.
///
/// # Errors
/// When the device fails.
pub fn model(run: &SavedRun) -> Result<ExportModel> {
    let (record, session) = (&run.record, &run.session);
    let name = run.folder.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let model = ExportModel {
        name,
        spec: session.backbone.spec.clone(),
        params: run.model.params.detached().to_device(&Device::Cpu)?,
        readout: run.readout(),
        classes: record.classes.clone(),
        preprocess: record.preprocess,
        bit_depth: session.settings.data.bit_depth,
        temperature: record.temperature,
        backbone: record.backbone.name.clone(),
    };
    Ok(model.with_plain_pooling())
}

/// Some of the run's own images, and what its model makes of them.
///
/// # Errors
/// Data errors when they are gone or cannot be read.
pub fn of_images(run: &SavedRun) -> Result<Check> {
    let dataset = run.dataset()?;
    let pipeline = run.pipeline();
    if let Some(tiles) = &run.record.preprocess.tiles {
        let bag = |sample: usize| {
            let path = &dataset.samples[sample].path;
            pipeline.bag(tiles, path).map_err(|error| DataError::bad_file(path, error))
        };
        let bags = samples(&dataset, TILED_IMAGES).into_iter().map(bag).collect::<Result<_, _>>()?;
        return of_bags(run, *tiles, bags);
    }
    let samples = samples(&dataset, IMAGES);
    let mut inputs = Vec::new();
    for &sample in &samples {
        let path = &dataset.samples[sample].path;
        inputs.extend(pipeline.load_once(path, View::PLAIN).map_err(|error| DataError::bad_file(path, error))?);
    }
    pipeline.finish(&mut inputs, &vec![View::PLAIN; samples.len()]);
    of_inputs(run, inputs)
}

/// Wave patterns instead of images, for a run whose images are gone: any input shows whether the files compute what the
/// model does.
///
/// # Errors
/// When the device fails.
pub fn of_patterns(run: &SavedRun) -> Result<Check> {
    const COUNT: usize = 4;
    let values = run.session.backbone.spec.image_size.values();
    let wave = |at: usize| {
        let (pattern, place) = (at / values, at % values);
        1.5 * (place as f32 * (0.011 + 0.007 * pattern as f32)).sin()
    };
    let Some(tiles) = run.record.preprocess.tiles else {
        return of_inputs(run, (0..COUNT * values).map(wave).collect());
    };
    let level = |x: u32, y: u32| (127.5 + 80.0 * (0.05 * f64::from(x) + 0.0007 * f64::from(x * y)).sin()) as u8;
    let image = RgbImage::from_fn(2 * tiles.side, 2 * tiles.side, |x, y| Rgb([level(x, y), level(y, x), 128]));
    let windows = tiles.windows(image.dimensions()).map_err(|error| DataError::bad_file(&run.folder, error))?;
    of_bags(run, tiles, vec![Bag { image, windows }])
}

/// What the model makes of standardised images (n, 3, H, W).
fn of_inputs(run: &SavedRun, inputs: Vec<f32>) -> Result<Check> {
    let [channels, height, width] = run.session.backbone.spec.image_size.shape();
    let count = inputs.len() / (channels * height * width);
    let batch = Batch { inputs, labels: vec![0; count], indices: (0..count).collect(), ..Batch::default() };
    let logits = run.model.run(&batch)?.logits;
    Ok(Check { inputs: vec![Tensor::from_vec(batch.inputs, (count, channels, height, width), &Device::Cpu)?], logits })
}

/// What the model makes of images, each cut down to its first tiles.
fn of_bags(run: &SavedRun, tiles: Tiles, bags: Vec<Bag>) -> Result<Check> {
    let (pipeline, [channels, height, width]) = (run.pipeline(), run.session.backbone.spec.image_size.shape());
    let extractor = run.model.extractor(run.model.read())?;
    let images = TiledImages { extractor: &extractor, pipeline: &pipeline, tiles };
    let mut check = Check { inputs: Vec::new(), logits: Vec::new() };
    for mut bag in bags {
        bag.windows.truncate(TILES);
        let all: Vec<usize> = (0..bag.windows.len()).collect();
        check.logits.extend(run.model.classify(&run.model.row_of(&images, &bag)?, 1)?.logits);
        let pixels =
            pipeline.preprocess().tiles_of(&bag, &all).map_err(|error| DataError::bad_file(&run.folder, error))?;
        check.inputs.push(Tensor::from_vec(pixels, (all.len(), channels, height, width), &Device::Cpu)?);
    }
    Ok(check)
}

/// At most `most` samples, evenly spaced among the test images, or among the training images when there are none. Samples are
/// sorted by class, so the choice spreads over the classes.
fn samples(dataset: &Dataset, most: usize) -> Vec<usize> {
    let test = dataset.indices(Split::Test);
    let all = if test.is_empty() { dataset.indices(Split::Train) } else { test };
    let step = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(step).collect()
}
