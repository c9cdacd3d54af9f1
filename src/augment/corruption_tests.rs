//! What all operations on images of industry have in common; those of each are seen in `docs/augment-sheet.png`.

use super::*;
use crate::augment::{Effect, ImageChange, Jpeg};
use crate::rng::{Purpose, Stream};
use image::{Rgb, RgbImage};
use proptest::prelude::*;

fn operation(settings: &AugmentSettings) -> Box<ImageChange> {
    let mut steps = settings.steps();
    assert_eq!(steps.len(), 1);
    match steps.remove(0).1 {
        Effect::Image(operation) => operation,
        Effect::Window(_) | Effect::Pixels(_) => panic!("no operation on images"),
    }
}

fn named(name: &str) -> Corruption {
    Corruption::parse(name).unwrap()
}

fn stream(seed: u64) -> Stream {
    Stream::new(seed, Purpose::Augment, &[])
}

/// A wavy picture, of many greys or of colours.
fn picture(width: u32, height: u32, grey: bool) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let level = 60 + (x * 7 + y * 3) % 90;
        Rgb([level, if grey { level } else { 200 - level }, if grey { level } else { y % 200 }].map(|v| v as u8))
    })
}

fn mean_change(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.as_raw().len() as f64
}

/// The only operation that is on, with another probability.
fn with_p(corruption: Corruption, strength: f64, p: f64) -> AugmentSettings {
    let mut settings = serde_json::to_value(corruption.settings(strength)).unwrap();
    settings[corruption.name()]["p"] = p.into();
    serde_json::from_value(settings).unwrap()
}

#[test]
fn names_are_those_of_the_config() {
    for corruption in Corruption::all() {
        assert_eq!(Corruption::parse(corruption.name()), Some(corruption));
        let settings = serde_json::to_value(corruption.settings(0.5)).unwrap();
        assert_eq!(settings[corruption.name()]["p"], 1.0);
    }
    assert_eq!(Corruption::parse("fog"), None);
}

#[test]
fn no_strength_is_nothing_and_more_changes_more() {
    let source = picture(96, 80, false);
    for corruption in Corruption::all() {
        let name = corruption.name();
        assert_eq!(corruption.settings(0.0), AugmentSettings::NONE, "{name}");
        let change = |strength: f64| {
            let operation = operation(&corruption.settings(strength));
            (0..40).map(|seed| mean_change(&source, &operation(source.clone(), &mut stream(seed)))).sum::<f64>() / 40.0
        };
        let changes = [0.01, 0.1, 0.3, 0.6, 1.0].map(change);
        assert!(changes.is_sorted(), "{name}: {changes:?}");
        assert!(changes[0] < 2.0 && changes[4] > 1.0, "{name}: {changes:?}");
        assert!(changes[4] < 90.0, "{name} leaves nothing of the picture: {changes:?}");
    }
}

#[test]
fn a_stream_is_one_picture_and_hardly_any_probability_none() {
    let source = picture(64, 64, false);
    for corruption in Corruption::all() {
        let settings = corruption.settings(0.7);
        let apply = |seed| operation(&settings)(source.clone(), &mut stream(seed));
        assert_eq!(apply(1), apply(1));
        if corruption.name() != "jpeg" {
            assert_ne!(apply(1), apply(2), "{}", corruption.name()); // one quality is one picture
        }
        let never = operation(&with_p(corruption, 0.7, 1e-12))(source.clone(), &mut stream(1));
        assert_eq!(never, source, "{}", corruption.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_size_is_kept_and_grey_stays_grey(width in 1u32..70, height in 1u32..70, seed: u64, strength in 0.01..=1.0) {
        for corruption in Corruption::all() {
            let operation = operation(&corruption.settings(strength));
            let changed = operation(picture(width, height, true), &mut stream(seed));
            prop_assert_eq!(changed.dimensions(), (width, height));
            prop_assert!(changed.pixels().all(|Rgb([r, g, b])| r == g && g == b), "{}", corruption.name());
        }
    }
}

#[test]
fn surface_flaws_are_local_and_of_both_signs() {
    let flat = RgbImage::from_pixel(100, 100, Rgb([128; 3]));
    for corruption in ["stains", "scratches"].map(named) {
        let (mut touched, mut darker, mut lighter) = (0, 0, 0);
        for seed in 0..30 {
            let changed = operation(&corruption.settings(0.5))(flat.clone(), &mut stream(seed));
            touched += changed.pixels().filter(|pixel| pixel.0[0] != 128).count();
            darker += changed.pixels().filter(|pixel| pixel.0[0] < 100).count();
            lighter += changed.pixels().filter(|pixel| pixel.0[0] > 156).count();
        }
        let share = f64::from(u32::try_from(touched).unwrap()) / (30.0 * 100.0 * 100.0);
        assert!((0.005..0.35).contains(&share), "{}: {share}", corruption.name());
        assert!(darker > 100 && lighter > 100, "{}: {darker} and {lighter}", corruption.name());
    }
}

#[test]
fn noise_has_the_deviation_that_was_asked_for() {
    // All of the noise is constant or all of it grows with the brightness: at white the deviation is the same, but
    // half of it is cut off there, so mid-grey is looked at.
    let flat = RgbImage::from_pixel(128, 128, Rgb([128; 3]));
    for seed in 0..8 {
        let noisy = operation(&named("noise").settings(0.1))(flat.clone(), &mut stream(seed));
        let values: Vec<f64> = noisy.pixels().map(|pixel| f64::from(pixel.0[0]) - 128.0).collect();
        let deviation = (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt();
        let most = 0.05 * 255.0;
        assert!((0.5 * most * 0.7..most * 1.02).contains(&deviation), "{deviation}");
        assert!((values.iter().sum::<f64>() / values.len() as f64).abs() < 0.4);
    }
}

#[test]
fn blur_keeps_the_mean_and_flat_areas() {
    let flat = RgbImage::from_pixel(50, 40, Rgb([7, 90, 201]));
    let mut half = RgbImage::new(50, 40);
    half.enumerate_pixels_mut().for_each(|(x, _, pixel)| *pixel = Rgb([if x < 25 { 40 } else { 200 }; 3]));
    let mean = |image: &RgbImage| image.as_raw().iter().map(|&v| f64::from(v)).sum::<f64>() / image.len() as f64;
    for seed in 0..12 {
        let blur = operation(&named("blur").settings(1.0));
        assert_eq!(blur(flat.clone(), &mut stream(seed)), flat);
        let blurred = blur(half.clone(), &mut stream(seed));
        assert!((mean(&blurred) - mean(&half)).abs() < 0.6, "{} and {}", mean(&blurred), mean(&half));
    }
}

#[test]
fn a_lower_quality_is_a_worse_picture_of_the_same_thing() {
    let source = picture(64, 48, false);
    let change = |quality| {
        let settings = AugmentSettings { jpeg: Some(Jpeg { p: 1.0, quality }), ..AugmentSettings::NONE };
        mean_change(&source, &operation(&settings)(source.clone(), &mut stream(3)))
    };
    assert!(change([95, 95]) < change([50, 50]) && change([50, 50]) < change([5, 5]));
}
