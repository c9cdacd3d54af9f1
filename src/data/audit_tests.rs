use super::*;
use crate::config::ResizeMode;
use crate::data::testing::{data_error, two_classes};
use crate::data::transform::{Geometry, Interpolation, Tiles};
use std::cell::Cell;

fn options(on_error: OnError, threads: usize) -> AuditOptions {
    let interpolation = Interpolation::Bilinear;
    let geometry = Geometry { image_size: 16.into(), resize: ResizeMode::Letterbox, interpolation, crop_pct: 1.0 };
    AuditOptions { decode: DecodeOptions::default(), geometry, tiles: None, on_error, threads }
}

#[test]
fn threads_do_not_change_the_findings() {
    let (_root, dataset) = two_classes(6);
    let look = |threads| {
        let calls = Cell::new(0);
        let progress = |done: usize| {
            calls.set(calls.get() + 1);
            assert_eq!(done, calls.get());
        };
        let found = audit(&mut dataset.clone(), &options(OnError::Fail, threads), &progress).unwrap();
        assert_eq!(calls.get(), 12);
        found
    };
    let one = look(1);
    assert_eq!(one, look(3));
    assert!(one.skipped.is_empty() && one.warnings.is_empty() && one.look_alikes.is_empty());
    assert_eq!(one.data_hash.len(), 64);
}

#[test]
fn pixels_of_images_that_are_cut_are_counted_as_they_are() {
    let (_root, mut dataset) = two_classes(1);
    dataset.samples.truncate(1);
    // Stripes that a resize to 16 pixels would average away.
    let stripes = image::RgbImage::from_fn(64, 40, |x, _| image::Rgb([if x % 2 == 0 { 0 } else { 255 }; 3]));
    stripes.save(&dataset.samples[0].path).unwrap();
    let tiles = |side| Some(Tiles { side, overlap: side / 2, staggered: false, second_look: 0 });
    let deviation = |tiles| {
        let options = AuditOptions { tiles, ..options(OnError::Fail, 1) };
        examine(&dataset, &options, &|_| {}).unwrap().statistics.std[0]
    };
    assert!(deviation(None) < 0.1 && (deviation(tiles(16)) - 0.5).abs() < 0.01);
    let options = AuditOptions { tiles: tiles(2), ..options(OnError::Fail, 1) };
    stripes.save(&dataset.samples[0].path).unwrap();
    assert!(examine(&dataset, &options, &|_| {}).unwrap().bad.is_empty());
    image::RgbImage::new(400, 400).save(&dataset.samples[0].path).unwrap();
    let bad = examine(&dataset, &options, &|_| {}).unwrap().bad;
    assert!(bad[0].reason.contains("tiles of 2 pixels; at most"), "{}", bad[0].reason);
}

#[test]
fn the_hash_follows_names_labels_and_bytes() {
    let (_root, dataset) = two_classes(3);
    let hash = |dataset: &Dataset| audit(&mut dataset.clone(), &options(OnError::Fail, 1), &|_| {}).unwrap().data_hash;
    let original = hash(&dataset);
    let mut renamed = dataset.clone();
    renamed.samples[0].name = "bad/other.png".into();
    let mut relabelled = dataset.clone();
    relabelled.samples[0].label = 1;
    let mut changed = vec![original.clone(), hash(&renamed), hash(&relabelled)];
    image::RgbImage::new(5, 5).save(&dataset.samples[0].path).unwrap();
    changed.push(hash(&dataset));
    changed.sort();
    changed.dedup();
    assert_eq!(changed.len(), 4);
}

#[test]
fn bad_files_are_all_listed_or_all_left_out() {
    let (_root, dataset) = two_classes(4);
    for index in [1, 6] {
        std::fs::write(&dataset.samples[index].path, b"no image").unwrap();
    }
    let error = data_error(audit(&mut dataset.clone(), &options(OnError::Fail, 2), &|_| {}));
    assert!(error.contains("2 images cannot be used") && error.contains("01.png: is not an image"), "{error}");
    let mut kept = dataset.clone();
    let found = audit(&mut kept, &options(OnError::Skip, 2), &|_| {}).unwrap();
    assert_eq!(kept.samples.len(), 6);
    assert_eq!(
        found.skipped.iter().map(|bad| &bad.path).collect::<Vec<_>>(),
        [&dataset.samples[1].path, &dataset.samples[6].path]
    );

    for sample in &dataset.samples[..4] {
        std::fs::write(&sample.path, b"").unwrap();
    }
    let error = data_error(audit(&mut dataset.clone(), &options(OnError::Skip, 2), &|_| {}));
    assert!(error.contains("no training image of \"bad\""), "{error}");
}

#[test]
fn duplicates_across_splits_are_an_error_within_one_a_warning() {
    let (_root, mut dataset) = two_classes(4);
    std::fs::copy(&dataset.samples[0].path, &dataset.samples[5].path).unwrap();
    let found = audit(&mut dataset.clone(), &options(OnError::Fail, 1), &|_| {}).unwrap();
    assert!(
        found.warnings[0].contains("\"bad/00.png\" (bad, train) = \"good/01.png\" (good, train)"),
        "{:?}",
        found.warnings
    );
    assert_eq!(found.warnings.len(), 1, "each pair once, with all that is wrong about it");
    assert!(
        found.warnings[0].starts_with("1 image is the same file as another of its split, but labelled differently:")
    );
    dataset.samples[5].split = Split::Test;
    let error = data_error(audit(&mut dataset, &options(OnError::Fail, 1), &|_| {}));
    assert!(error.contains("1 image is in two splits"), "{error}");
    assert!(error.contains("\"bad/00.png\" (bad, train) = \"good/01.png\" (good, test)"), "{error}");
}

#[test]
fn statistics_are_of_training_images_without_border() {
    let (_root, mut dataset) = two_classes(3);
    for (index, sample) in dataset.samples.iter_mut().enumerate() {
        let split = if index % 3 == 2 { Split::Val } else { Split::Train };
        sample.split = split;
        let shade = if split == Split::Val { 255 } else { 51 * (1 + (index % 3) as u8) };
        // Far from square, so that a counted border would show; the width keeps the files apart.
        image::RgbImage::from_pixel(40 + index as u32, 4, image::Rgb([shade, 0, 0])).save(&sample.path).unwrap();
    }
    let found = audit(&mut dataset, &options(OnError::Fail, 2), &|_| {}).unwrap().statistics;
    assert!((found.mean[0] - 0.3).abs() < 1e-6 && (found.std[0] - 0.1).abs() < 1e-6, "{found:?}");
    assert_eq!(found.mean[1..], [0.0; 2]);
    assert!((found.median[0] - 0.2).abs() < 1e-6 && (found.iqr[0] - 0.2).abs() < 1e-6, "{found:?}");
}

#[test]
fn near_images_are_reported_with_what_is_wrong_about_them() {
    let (_root, mut dataset) = two_classes(4);
    // A picture with structure, and itself as another file.
    let wavy = image::RgbImage::from_fn(64, 64, |x, y| {
        image::Rgb([(128.0 + 90.0 * ((x * x) as f32 / 300.0).sin() * ((y * 7) as f32 / 40.0).cos()) as u8; 3])
    });
    wavy.save(&dataset.samples[0].path).unwrap();
    image::imageops::brighten(&wavy, 12).save(&dataset.samples[5].path).unwrap();
    dataset.samples[5].split = Split::Test;
    let found = examine(&dataset, &options(OnError::Fail, 2), &|_| {}).unwrap();
    let twins = found.resemblances(2).twins;
    let near = twins.iter().find(|pair| (pair.first, pair.second) == (0, 5)).unwrap();
    assert!(near.likeness.unwrap().correlation > 0.99);
    assert!(found.warnings(&twins, DecodeOptions::default(), true).is_empty(), "no copies of files");
    let said = "1 image is strikingly similar to one of another split, but labelled differently";
    let pair = ":\n  \"bad/00.png\" (bad, train) ~ \"good/01.png\" (good, test)";
    assert_eq!(found.look_alikes(&twins, true), [format!("{said}{pair}")]);
    assert_eq!(found.look_alikes(&twins, false), [said]);
    assert!(found.problems(OnError::Fail).is_empty(), "near images stop nothing");

    // A copy of either is named as that, and not once more as like the other.
    for (copy, of) in [(1, 0), (6, 5)] {
        std::fs::copy(&dataset.samples[of].path, &dataset.samples[copy].path).unwrap();
        dataset.samples[copy].split = dataset.samples[of].split;
    }
    let twins = examine(&dataset, &options(OnError::Fail, 2), &|_| {}).unwrap().resemblances(2).twins;
    let pairs: Vec<_> = twins.iter().map(|pair| (pair.first, pair.second, pair.likeness.is_some())).collect();
    assert_eq!(pairs, [(0, 1, false), (5, 6, false), (0, 5, true)]);
}

#[test]
fn every_problem_is_found_in_one_look() {
    let (_root, mut dataset) = two_classes(3);
    std::fs::write(&dataset.samples[1].path, b"no image").unwrap();
    std::fs::copy(&dataset.samples[0].path, &dataset.samples[2].path).unwrap();
    dataset.samples[2].split = Split::Test;
    for sample in &mut dataset.samples[3..] {
        sample.split = Split::Val;
    }
    let found = examine(&dataset, &options(OnError::Fail, 1), &|_| {}).unwrap();
    let problems: Vec<String> = found.problems(OnError::Fail).iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, words) in problems.iter().zip(["cannot be used", "no training image", "in two splits"]) {
        assert!(problem.contains(words), "{problem}");
    }
    assert_eq!(found.problems(OnError::Skip).len(), 2, "bad files may be left out");
    assert_eq!((found.findings.len(), found.findings[0].storage.to_string()), (5, "PNG, colour, 8 bit".into()));
}

#[test]
fn twelve_bits_in_sixteen_are_said() {
    let (_root, dataset) = two_classes(3);
    let warned = |most: u16, bit_depth: u8| {
        for (index, sample) in dataset.samples.iter().enumerate() {
            let value = |x: u32, y: u32| (u32::from(most) * (x + y + index as u32) / 46) as u16;
            let deep = image::ImageBuffer::from_fn(20, 20, |x, y| image::Luma([value(x, y).min(most)]));
            image::DynamicImage::ImageLuma16(deep).save(&sample.path).unwrap();
        }
        let decode = DecodeOptions { bit_depth };
        let found =
            audit(&mut dataset.clone(), &AuditOptions { decode, ..options(OnError::Fail, 1) }, &|_| {}).unwrap();
        assert_eq!((found.kinds.deep, found.kinds.peak), (6, Some((u32::from(most) * 43 / 46) as u16)));
        found.warnings.into_iter().find(|warning| warning.contains("16 bits"))
    };
    let found = warned(4095, 16).unwrap();
    assert!(found.contains("above 4095") && found.contains("data.bit_depth = 12"), "{found}");
    assert!(found.contains("reach 6.2 % of white"), "{found}");
    assert_eq!([warned(4095, 12), warned(65_535, 16)], [None, None]);
    assert!(warned(65_535, 12).unwrap().contains("all above 4095 are white"));
}

#[test]
fn the_same_pixels_in_two_splits_are_warned_of_whatever_the_file() {
    let (_root, mut dataset) = two_classes(3);
    let wavy =
        image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 5) as u8, (y * 8) as u8, ((x * y) % 251) as u8]));
    wavy.save(&dataset.samples[0].path).unwrap();
    let mut bytes = Vec::new();
    wavy.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Bmp).unwrap();
    std::fs::write(&dataset.samples[1].path, bytes).unwrap();
    let warned = |dataset: &Dataset| audit(&mut dataset.clone(), &options(OnError::Fail, 1), &|_| {}).unwrap();
    assert!(warned(&dataset).warnings.is_empty(), "of one split");
    dataset.samples[1].split = Split::Test;
    let found = warned(&dataset);
    let said = "1 image is the same picture as one of another split, in another file, so a score would partly measure \
                memory:\n  \"bad/00.png\" (bad, train) = \"bad/01.png\" (bad, test)";
    assert_eq!((found.warnings, found.look_alikes), (vec![said.to_owned()], Vec::new()), "once");
}
