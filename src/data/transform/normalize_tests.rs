use super::*;
use crate::config::{InterpolationChoice, ResizeMode};
use crate::data::transform::Interpolation;

const BACKBONE: BackboneDefaults = BackboneDefaults {
    mean: [0.1, 0.2, 0.3],
    std: [0.4, 0.5, 0.6],
    resize: ResizeMode::Squash,
    interpolation: Interpolation::Bicubic,
    crop_pct: 0.9,
};

fn settings(normalize: NormalizeChoice) -> PreprocessSettings {
    let interpolation = InterpolationChoice::Backbone;
    PreprocessSettings { resize: ResizeMode::Squash, tiles: None, interpolation, normalize, mean: None, std: None }
}

#[test]
fn choices_find_their_numbers() {
    let measured = ChannelStatistics { mean: [0.3; 3], std: [0.2; 3], median: [0.25; 3], iqr: [0.1349, 0.2698, 0.0] };
    let resolve = |settings: &PreprocessSettings| Normalization::resolve(settings, &BACKBONE, Some(&measured)).unwrap();
    let numbers = |choice| match resolve(&settings(choice)) {
        Normalization::PerChannel { mean, std } => (mean, std),
        Normalization::Batch => panic!("not per channel"),
    };
    assert_eq!(numbers(NormalizeChoice::Backbone), (BACKBONE.mean, BACKBONE.std));
    assert_eq!(numbers(NormalizeChoice::Symmetric), ([0.5; 3], [0.5; 3]));
    assert_eq!(numbers(NormalizeChoice::Imagenet).0, [0.485, 0.456, 0.406]);
    assert_eq!(numbers(NormalizeChoice::Dataset), ([0.3; 3], [0.2; 3]));
    let (mean, std) = numbers(NormalizeChoice::Robust);
    assert_eq!(mean, [0.25; 3]);
    assert!((std[0] - 0.1).abs() < 1e-6 && (std[1] - 0.2).abs() < 1e-6, "{std:?}");
    assert_eq!(std[2], SMALLEST_STD, "a channel without spread is not divided by zero");
    assert_eq!(resolve(&settings(NormalizeChoice::Batch)), Normalization::Batch);
    let explicit =
        PreprocessSettings { mean: Some([0.7; 3]), std: Some([0.8; 3]), ..settings(NormalizeChoice::Explicit) };
    assert_eq!(resolve(&explicit), Normalization::PerChannel { mean: [0.7; 3], std: [0.8; 3] });
}

#[test]
fn absent_numbers_are_an_error() {
    for choice in [NormalizeChoice::Dataset, NormalizeChoice::Robust, NormalizeChoice::Explicit] {
        assert!(Normalization::resolve(&settings(choice), &BACKBONE, None).is_err(), "{choice:?}");
    }
}

#[test]
fn pixels_are_planes() {
    let image = RgbImage::from_raw(2, 1, vec![0, 51, 102, 255, 204, 153]).unwrap();
    let normalization = Normalization::PerChannel { mean: [0.5, 0.0, 0.0], std: [0.5, 1.0, 2.0] };
    let expected = [-1.0, 1.0, 0.2, 0.8, 0.2, 0.3];
    let pixels = normalization.standardize(&image);
    assert!(pixels.iter().zip(expected).all(|(x, y): (&f32, f32)| (x - y).abs() < 1e-6), "{pixels:?}");
}

#[test]
fn a_flat_batch_stays_finite() {
    let mut pixels = vec![0.25; 2 * 3 * 4];
    Normalization::Batch.finish_batch(&mut pixels, 2.into());
    assert!(pixels.iter().all(|&x| x == 0.0));
}
