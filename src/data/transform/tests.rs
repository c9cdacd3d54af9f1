use super::*;
use crate::augment::{ColorJitter, Erasing, HorizontalFlip, Noise, RandomResizedCrop, Rotate90, Stains, VerticalFlip};
use crate::config::ResizeMode;
use image::Rgb;

fn preprocess(resize: ResizeMode) -> Preprocess {
    let geometry = Geometry { image_size: 16.into(), resize, interpolation: Interpolation::Bilinear, crop_pct: 0.875 };
    Preprocess {
        geometry,
        normalization: Normalization::PerChannel { mean: [0.4, 0.5, 0.6], std: [0.2; 3] },
        tiles: None,
    }
}

fn off() -> AugmentSettings {
    AugmentSettings::NONE
}

fn picture() -> RgbImage {
    RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, (x * y % 256) as u8]))
}

fn view_of(settings: &AugmentSettings, sample: u64) -> RgbImage {
    let pipeline = Pipeline::training(preprocess(ResizeMode::Squash), DecodeOptions::default(), settings, 5);
    pipeline.resized_view(&picture(), View { epoch: 2, sample }).unwrap()
}

#[test]
fn all_off_is_the_evaluation() {
    assert_eq!(view_of(&off(), 0), preprocess(ResizeMode::Squash).resized(&picture()).unwrap());
}

#[test]
fn certain_operations_do_what_their_names_say() {
    let plain = preprocess(ResizeMode::Squash).resized(&picture()).unwrap();
    assert_eq!(
        view_of(&AugmentSettings { hflip: Some(HorizontalFlip(1.0)), ..off() }, 0),
        image::imageops::flip_horizontal(&plain)
    );
    assert_eq!(
        view_of(&AugmentSettings { vflip: Some(VerticalFlip(1.0)), ..off() }, 0),
        image::imageops::flip_vertical(&plain)
    );
    let turned: Vec<RgbImage> =
        (0..60).map(|sample| view_of(&AugmentSettings { rotate90: Some(Rotate90(1.0)), ..off() }, sample)).collect();
    assert!(!turned.contains(&plain), "rotation by a multiple of 360 degrees is not a rotation");
    for expected in
        [image::imageops::rotate90(&plain), image::imageops::rotate180(&plain), image::imageops::rotate270(&plain)]
    {
        let count = turned.iter().filter(|&image| *image == expected).count();
        assert!((8..=32).contains(&count), "{count} of 60");
    }
}

#[test]
fn operations_do_not_disturb_each_other() {
    // Whether a sample is flipped does not depend on what else is on.
    let flip = AugmentSettings { hflip: Some(HorizontalFlip(0.5)), ..off() };
    let almost_never = 1e-9;
    let more = AugmentSettings {
        rotate90: Some(Rotate90(almost_never)),
        color: Some(ColorJitter { p: almost_never, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 }),
        stains: Some(Stains { p: almost_never, strength: 1.0, count: [1, 3], size: [0.1, 0.3] }),
        noise: Some(Noise { p: almost_never, strength: 0.2 }),
        ..flip.clone()
    };
    let flips: Vec<RgbImage> = (0..40).map(|sample| view_of(&flip, sample)).collect();
    assert!((0..40).all(|sample| view_of(&more, sample) == flips[sample as usize]));
    let changed = flips.iter().filter(|&image| *image != flips[0]).count();
    assert!((1..40).contains(&changed), "some are flipped, some are not");
}

#[test]
fn erasing_comes_after_standardisation() {
    let erasing = Some(Erasing { p: 1.0, area: [0.1, 0.1], ratio: [1.0, 1.0] });
    let pipeline = Pipeline::training(
        preprocess(ResizeMode::Squash),
        DecodeOptions::default(),
        &AugmentSettings { erasing, ..off() },
        5,
    );
    let mut pixels = vec![1.0; 2 * 3 * 16 * 16];
    let views = [View { epoch: 0, sample: 0 }, View { epoch: 0, sample: 1 }];
    pipeline.finish(&mut pixels, &views);
    let (first, second) = pixels.split_at(3 * 16 * 16);
    assert_eq!(first.iter().filter(|&&x| x == 0.0).count(), 3 * 25);
    assert_ne!(first, second, "each sample draws its own patch");
}

#[test]
fn a_picture_shows_the_view_and_what_is_erased() {
    let erasing = Some(Erasing { p: 1.0, area: [0.1, 0.1], ratio: [1.0, 1.0] });
    for normalization in [Normalization::Batch, preprocess(ResizeMode::Squash).normalization] {
        let preprocess = Preprocess { normalization, ..preprocess(ResizeMode::Squash) };
        let picture_of = |settings: &AugmentSettings| {
            let pipeline = Pipeline::training(preprocess, DecodeOptions::default(), settings, 5);
            pipeline.picture(&picture(), View { epoch: 0, sample: 0 }).unwrap()
        };
        let plain = preprocess.resized(&picture()).unwrap();
        assert_eq!(picture_of(&off()), plain);
        let neutral = normalization.neutral_color();
        let erased = picture_of(&AugmentSettings { erasing, ..off() });
        let changed: Vec<_> = erased.pixels().zip(plain.pixels()).filter(|(a, b)| a != b).collect();
        assert!((20..=25).contains(&changed.len()) && changed.iter().all(|(a, _)| **a == neutral), "{changed:?}");
    }
}

#[test]
fn a_crop_replaces_the_resize() {
    let crop = Some(RandomResizedCrop { scale: [0.2, 0.4], ratio: [0.75, 1.33] });
    let view = view_of(&AugmentSettings { crop, ..off() }, 3);
    assert_eq!(view.dimensions(), (16, 16));
    assert_ne!(view, view_of(&off(), 3));
}

#[test]
fn a_plan_survives_its_file() {
    for normalization in [Normalization::Batch, preprocess(ResizeMode::Crop).normalization] {
        let plan = Preprocess { normalization, ..preprocess(ResizeMode::Crop) };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), plan, "{text}");
        assert!(text.starts_with(r#"{"image_size":16,"resize":"crop","interpolation":"bilinear""#), "{text}");
    }
}

#[test]
fn a_letterbox_border_is_near_zero() {
    let plan = preprocess(ResizeMode::Letterbox);
    let pixels = plan.normalization.standardize(&plan.resized(&picture()).unwrap());
    assert_eq!(pixels.len(), 3 * 16 * 16);
    for plane in pixels.chunks_exact(16 * 16) {
        assert!(plane[..32].iter().all(|x| x.abs() < 0.01), "the two rows of border: {:?}", &plane[..32]);
    }
}

#[test]
fn a_flaw_grows_with_its_strength_and_keeps_its_place() {
    let plain = Pipeline::evaluation(preprocess(ResizeMode::Squash), DecodeOptions::default());
    let view = View { epoch: 0, sample: 3 };
    let seen = |pipeline: &Pipeline| pipeline.resized_view(&picture(), view).unwrap();
    let clean = seen(&plain);
    for corruption in Corruption::all() {
        let at = |strength, seed| seen(&plain.corrupted(corruption, strength, seed));
        let change =
            |image: &RgbImage| -> u32 { image.iter().zip(clean.iter()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum() };
        assert_eq!(at(0.0, 5), clean, "{corruption:?}");
        assert_eq!(at(0.7, 5), at(0.7, 5), "{corruption:?}");
        assert!(change(&at(1.0, 5)) > change(&at(0.2, 5)), "{corruption:?}");
        // Not what training would have drawn from the same seed.
        let training =
            Pipeline::training(preprocess(ResizeMode::Squash), DecodeOptions::default(), &corruption.settings(1.0), 5);
        if corruption.name() != "jpeg" {
            assert!(seen(&training) != at(1.0, 5), "{corruption:?}");
        }
    }
}
