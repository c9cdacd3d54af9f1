use super::*;
use crate::augment::{
    AugmentSettings, ColorJitter, Erasing, HorizontalFlip, RandomResizedCrop, Rotate90, VerticalFlip,
};
use crate::config::Sampler;
use crate::data::decode::DecodeOptions;
use crate::data::sampler::epoch_order;
use crate::data::testing::{data_error, two_classes};
use crate::data::transform::{Geometry, Interpolation, Normalization, Preprocess};

const SIDE: usize = 16;

fn preprocess(normalization: Normalization) -> Preprocess {
    Preprocess { geometry: Geometry::squash(SIDE, Interpolation::Bilinear), normalization, tiles: None }
}

fn everything_on() -> AugmentSettings {
    AugmentSettings {
        hflip: Some(HorizontalFlip(0.5)),
        vflip: Some(VerticalFlip(0.5)),
        rotate90: Some(Rotate90(0.5)),
        crop: Some(RandomResizedCrop { scale: [0.5, 1.0], ratio: [0.75, 1.33] }),
        color: Some(ColorJitter { p: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1 }),
        erasing: Some(Erasing { p: 0.5, area: [0.02, 0.1], ratio: [0.3, 3.3] }),
        ..AugmentSettings::NONE
    }
}

fn options(threads: usize) -> LoaderOptions {
    LoaderOptions { batch_size: 3, threads, first_batch: 0, destination: Destination::default() }
}

/// All ten samples of the second epoch.
fn shuffled(dataset: &Dataset) -> Vec<View> {
    epoch_order(Sampler::Shuffle, 7, 1, dataset)
}

fn views(epoch: u64, samples: impl IntoIterator<Item = u64>) -> Vec<View> {
    samples.into_iter().map(|sample| View { epoch, sample }).collect()
}

fn batches(dataset: &Dataset, pipeline: &Arc<Pipeline>, order: &[View], options: LoaderOptions) -> Vec<Batch> {
    let loader = Loader::new(Arc::new(dataset.clone()), order, Arc::clone(pipeline), options).unwrap();
    loader.collect::<Result<_>>().unwrap()
}

#[test]
fn threads_do_not_change_the_batches() {
    let (_root, dataset) = two_classes(5);
    let order = shuffled(&dataset);
    let symmetric = Normalization::PerChannel { mean: [0.5; 3], std: [0.5; 3] };
    for normalization in [symmetric, Normalization::Batch] {
        let pipeline = Pipeline::training(preprocess(normalization), DecodeOptions::default(), &everything_on(), 7);
        let pipeline = Arc::new(pipeline);
        let one = batches(&dataset, &pipeline, &order, options(1));
        assert_eq!(one.iter().map(|batch| batch.indices.len()).collect::<Vec<_>>(), [3, 3, 3, 1]);
        assert_eq!(
            one.iter().flat_map(|batch| views(1, batch.indices.iter().map(|&i| i as u64))).collect::<Vec<_>>(),
            order
        );
        assert!(one.iter().all(|batch| batch.inputs.len() == batch.indices.len() * 3 * SIDE * SIDE));
        assert!(one.iter().all(|b| b.indices.iter().zip(&b.labels).all(|(&i, &l)| dataset.samples[i].label == l)));
        for threads in [0, 2, 5, 64] {
            assert_eq!(batches(&dataset, &pipeline, &order, options(threads)), one, "{threads} threads");
        }
    }
}

/// A GPU, as far as a loader can tell.
const GPU: Destination = Destination { gpu: true, mixed: false };

#[test]
fn bytes_are_the_same_images_to_the_bit() {
    let (_root, dataset) = two_classes(5);
    let order = shuffled(&dataset);
    let normalization = Normalization::PerChannel { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 1.0 / 255.0] };
    let plain = Pipeline::evaluation(preprocess(normalization), DecodeOptions::default());
    let uncropped = AugmentSettings { crop: None, erasing: None, ..everything_on() };
    let cropped = AugmentSettings { erasing: None, ..everything_on() };
    let augmented = [uncropped, cropped].map(|settings| plain.augmented_by(&settings, 7));
    for pipeline in augmented.into_iter().chain([plain]).map(Arc::new) {
        for (batch_size, threads) in [(1, 1), (3, 2), (4, 5), (100, 3)] {
            let options = LoaderOptions { batch_size, ..options(threads) };
            let floats = batches(&dataset, &pipeline, &order, options);
            let bytes = batches(&dataset, &pipeline, &order, LoaderOptions { destination: GPU, ..options });
            assert_eq!(floats.len(), bytes.len());
            for (floats, bytes) in floats.iter().zip(bytes) {
                let n = floats.labels.len();
                assert_eq!(bytes.resized.as_ref().unwrap().bytes.len(), n * SIDE * SIDE * 3);
                let part = |batch: &Batch, samples: Range<usize>| {
                    let tensor = batch.tensor(samples, &[3, SIDE, SIDE], &Device::Cpu).unwrap();
                    assert_eq!(tensor.dims()[1..], [3, SIDE, SIDE]);
                    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
                };
                assert_eq!(part(&bytes, 0..n), floats.inputs);
                assert_eq!(part(&bytes, n / 2..n), part(floats, n / 2..n));
                assert_eq!(Batch { inputs: floats.inputs.clone(), resized: None, ..bytes }, *floats);
            }
        }
    }
}

#[test]
fn only_a_gpu_gets_bytes_and_only_where_nothing_else_is_done_to_pixels() {
    let symmetric = ([0.5; 3], [0.25; 3]);
    let per_channel = Normalization::PerChannel { mean: symmetric.0, std: symmetric.1 };
    let plain = |normalization| Pipeline::evaluation(preprocess(normalization), DecodeOptions::default());
    let erasing = AugmentSettings { erasing: everything_on().erasing, ..AugmentSettings::NONE };
    let flips = AugmentSettings { hflip: Some(HorizontalFlip(0.5)), ..AugmentSettings::NONE };
    assert_eq!(plain(per_channel).left_to(GPU), Some(symmetric));
    assert_eq!(plain(per_channel).augmented_by(&flips, 7).left_to(GPU), Some(symmetric));
    assert_eq!(plain(per_channel).augmented_by(&erasing, 7).left_to(GPU), None);
    assert_eq!(plain(per_channel).left_to(Destination { mixed: true, ..GPU }), None);
    assert_eq!(plain(per_channel).left_to(Destination::of(&Device::Cpu)), None);
    assert_eq!(plain(Normalization::Batch).left_to(GPU), None);
}

#[test]
fn resuming_gives_the_rest_of_the_epoch() {
    let (_root, dataset) = two_classes(5);
    let order = shuffled(&dataset);
    let pipeline =
        Arc::new(Pipeline::training(preprocess(Normalization::Batch), DecodeOptions::default(), &everything_on(), 7));
    let all = batches(&dataset, &pipeline, &order, options(2));
    for first_batch in 0..6 {
        let rest = batches(&dataset, &pipeline, &order, LoaderOptions { first_batch, ..options(2) });
        assert_eq!(rest, all[first_batch.min(4)..]);
    }
}

#[test]
fn views_change_with_the_epoch_only_in_training() {
    let (_root, dataset) = two_classes(2);
    let symmetric = preprocess(Normalization::PerChannel { mean: [0.5; 3], std: [0.5; 3] });
    let training = Arc::new(Pipeline::training(symmetric, DecodeOptions::default(), &everything_on(), 7));
    let evaluation = Arc::new(Pipeline::evaluation(symmetric, DecodeOptions::default()));
    let epoch = |pipeline, epoch| batches(&dataset, pipeline, &views(epoch, 0..3), options(2));
    assert_ne!(epoch(&training, 0), epoch(&training, 1));
    assert_eq!(epoch(&evaluation, 0), epoch(&evaluation, 1));
}

#[test]
fn batch_normalisation_standardises_each_channel() {
    let (_root, dataset) = two_classes(3);
    let pipeline = Arc::new(Pipeline::evaluation(preprocess(Normalization::Batch), DecodeOptions::default()));
    let batch = &batches(&dataset, &pipeline, &views(0, [0, 3, 5]), options(1))[0];
    for channel in 0..3 {
        let values = batch.inputs.chunks_exact(SIDE * SIDE).skip(channel).step_by(3).flatten();
        let values: Vec<f64> = values.map(|&x| f64::from(x)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
    }
}

#[test]
fn a_bad_file_ends_the_loading_with_its_name() {
    let (_root, dataset) = two_classes(5);
    std::fs::write(&dataset.samples[4].path, b"gone").unwrap();
    let pipeline = Arc::new(Pipeline::evaluation(preprocess(Normalization::Batch), DecodeOptions::default()));
    let order = views(0, 0..10);
    let mut loader = Loader::new(Arc::new(dataset), &order, pipeline, options(3)).unwrap();
    assert!(loader.next().unwrap().is_ok());
    let error = data_error(loader.next().unwrap());
    assert!(error.contains("bad/04.png: is not an image"), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn dropping_a_loader_stops_its_threads() {
    let (_root, dataset) = two_classes(3);
    let dataset = Arc::new(dataset);
    let pipeline = Arc::new(Pipeline::evaluation(preprocess(Normalization::Batch), DecodeOptions::default()));
    let order = views(0, (0..6).cycle().take(10_000));
    let mut loader = Loader::new(Arc::clone(&dataset), &order, pipeline, options(4)).unwrap();
    loader.next();
    drop(loader);
    assert_eq!(Arc::strong_count(&dataset), 1, "no thread holds the data any more");
}

#[test]
fn nothing_to_load_is_no_batch() {
    let dataset = Dataset::default();
    let pipeline = Arc::new(Pipeline::evaluation(preprocess(Normalization::Batch), DecodeOptions::default()));
    assert!(batches(&dataset, &pipeline, &[], options(2)).is_empty());
    assert!(Loader::new(Arc::new(dataset), &views(0, [0]), pipeline, options(2)).is_err());
}
