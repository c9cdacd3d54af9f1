use super::*;
use crate::data::testing::fixture;
use proptest::prelude::*;
use std::iter::zip;

const GREY: Rgb<u8> = Rgb([128; 3]);

fn picture(name: &str) -> RgbImage {
    image::open(fixture(&format!("resized/{name}.png"))).unwrap().into_rgb8()
}

fn assert_same(ours: &RgbImage, name: &str) {
    let pillow = picture(name);
    assert_eq!(ours.dimensions(), pillow.dimensions());
    let apart = zip(ours.as_raw(), pillow.as_raw()).filter(|(ours, pillow)| ours != pillow).count();
    assert_eq!(apart, 0, "{name}: so many values differ from Pillow's");
}

fn geometry(image_size: usize, resize: ResizeMode, interpolation: Interpolation) -> Geometry {
    Geometry { image_size: image_size.into(), resize, interpolation, crop_pct: 1.0 }
}

const FILTERS: [(&str, Interpolation); 2] =
    [("bilinear", Interpolation::Bilinear), ("bicubic", Interpolation::Bicubic)];

#[test]
fn squash_follows_pillow() {
    let source = picture("source");
    for (filter, interpolation) in FILTERS {
        for side in [24, 80] {
            let ours = geometry(side, ResizeMode::Squash, interpolation).resized(&source, GREY).unwrap();
            assert_same(&ours, &format!("squash_{filter}_{side}"));
        }
    }
}

/// Pillow resizes a picture whose height shrinks most from top to bottom first.
#[test]
fn the_order_of_passes_is_that_of_pillow() {
    let source = picture("source");
    let window = Window { x: 0, y: 0, width: 20, height: source.height() };
    for (filter, interpolation) in FILTERS {
        let ours = geometry(24, ResizeMode::Squash, interpolation).resized_window(&source, window).unwrap();
        assert_same(&ours, &format!("tall_{filter}"));
    }
}

#[test]
fn crop_follows_torchvision() {
    let source = picture("source");
    for (filter, interpolation) in FILTERS {
        for (side, crop_pct, name) in [(32, 0.9, "32_0.9"), (40, 0.875, "40_0.875"), (61, 1.0, "61_1.0")] {
            let geometry = Geometry { crop_pct, ..geometry(side, ResizeMode::Crop, interpolation) };
            assert_same(&geometry.resized(&source, GREY).unwrap(), &format!("crop_{filter}_{name}"));
        }
    }
}

#[test]
fn pixels_outside_a_window_have_no_influence() {
    let source = picture("source");
    let window = Window { x: 11, y: 7, width: 40, height: 33 };
    let cut = imageops::crop_imm(&source, window.x, window.y, window.width, window.height).to_image();
    for (_, interpolation) in FILTERS {
        let geometry = geometry(20, ResizeMode::Squash, interpolation);
        assert_eq!(geometry.resized_window(&source, window).unwrap(), geometry.resized(&cut, GREY).unwrap());
    }
}

#[test]
fn rounding_of_the_centre() {
    // Python: int(round((35 - 32) / 2.0)) and so on, half to even.
    assert_eq!([33, 35, 37, 36].map(|length| centered(length, 32)), [0, 2, 2, 2]);
    assert_eq!(short_side_to(256, (333, 500)), (256, 384));
    assert_eq!(short_side_to(256, (500, 333)), (384, 256));
}

#[test]
fn a_centre_crop_discards_the_ends() {
    let discarded =
        |resize, crop_pct, size| Geometry { crop_pct, ..geometry(32, resize, Interpolation::Bilinear) }.discarded(size);
    assert_eq!(discarded(ResizeMode::Crop, 1.0, (200, 100)), 0.5);
    assert!((discarded(ResizeMode::Crop, 0.9, (100, 100)) - 0.19).abs() < 1e-12);
    assert_eq!(discarded(ResizeMode::Squash, 0.9, (200, 100)), 0.0);
    let wide = Geometry { image_size: [16, 32].into(), ..geometry(1, ResizeMode::Crop, Interpolation::Bilinear) };
    assert_eq!([(200, 100), (100, 100), (400, 100)].map(|size| wide.discarded(size)), [0.0, 0.5, 0.5]);
    // timm's `ResizeKeepRatio` of the size over the share.
    let scaled = |crop_pct, size| Geometry { crop_pct, ..wide }.scaled_to_fill(size);
    assert_eq!(
        [scaled(1.0, (333, 100)), scaled(0.9, (333, 100)), scaled(1.0, (100, 333))],
        [(53, 16), (57, 17), (32, 107)]
    );
}

#[test]
fn letterbox_keeps_the_aspect_ratio() {
    let white = RgbImage::from_pixel(40, 10, Rgb([255; 3]));
    let resized = geometry(16, ResizeMode::Letterbox, Interpolation::Bicubic).resized(&white, GREY).unwrap();
    for (_, y, pixel) in resized.enumerate_pixels() {
        assert_eq!(pixel.0, if (6..10).contains(&y) { [255; 3] } else { [128; 3] });
    }
}

/// timm's `ResizeKeepRatio` makes 16 of 33 / 2, and 18 of 35 / 2.
#[test]
fn letterbox_rounds_halves_as_timm_does() {
    let boxed = geometry(32, ResizeMode::Letterbox, Interpolation::Bicubic);
    for (height, wanted) in [(33, 16), (35, 18)] {
        assert_eq!(boxed.content(&RgbImage::new(64, height)).unwrap().dimensions(), (32, wanted));
    }
}

#[test]
fn slivers_stay_small() {
    let sliver = RgbImage::from_pixel(65_535, 1, Rgb([7; 3]));
    for resize in [ResizeMode::Crop, ResizeMode::Squash] {
        let resized = geometry(32, resize, Interpolation::Bicubic).resized(&sliver, GREY).unwrap();
        assert!(resized.pixels().all(|pixel| pixel.0 == [7; 3]));
    }
    let boxed = geometry(32, ResizeMode::Letterbox, Interpolation::Bicubic).content(&sliver).unwrap();
    assert_eq!(boxed.dimensions(), (32, 1));
}

#[test]
fn an_image_without_pixels_is_an_error() {
    let geometry = geometry(8, ResizeMode::Squash, Interpolation::Bilinear);
    assert!(geometry.resized(&RgbImage::new(0, 0), GREY).is_err());
}

proptest! {
    #[test]
    fn every_shape_becomes_the_size_of_the_input(
        (width, height) in (1u32..200, 1u32..200), (rows, columns) in (1usize..64, 1usize..64), pct in 0.3f64..=1.0,
    ) {
        let image = RgbImage::from_pixel(width, height, Rgb([9, 90, 200]));
        for resize in [ResizeMode::Squash, ResizeMode::Letterbox, ResizeMode::Crop] {
            let image_size = [rows, columns].into();
            let geometry = Geometry { image_size, crop_pct: pct, ..geometry(1, resize, Interpolation::Bicubic) };
            let resized = geometry.resized(&image, Rgb([9, 90, 200])).unwrap();
            prop_assert_eq!(resized.dimensions(), (columns as u32, rows as u32));
            prop_assert!(resized.pixels().all(|pixel| pixel.0 == [9, 90, 200]), "a flat colour stays flat");
        }
    }
}

/// A bright spot is found in the input where the box says that it lies in the image.
#[test]
fn boxes_in_the_input_lie_in_the_image_where_their_content_does() {
    let spot = [60, 20, 70, 30]; // left, upper, right, lower
    let image = RgbImage::from_fn(100, 60, |x, y| {
        Rgb([if (spot[0]..spot[2]).contains(&x) && (spot[1]..spot[3]).contains(&y) { 255 } else { 0 }; 3])
    });
    let sizes = [Size::from(120), [60, 140].into(), [150, 110].into()];
    let modes = [ResizeMode::Squash, ResizeMode::Letterbox, ResizeMode::Crop];
    for (image_size, resize) in sizes.into_iter().flat_map(|size| modes.map(|resize| (size, resize))) {
        let geometry = Geometry { image_size, crop_pct: 0.9, ..geometry(1, resize, Interpolation::Bilinear) };
        let resized = geometry.resized(&image, Rgb([0; 3])).unwrap();
        let bright: Vec<(u32, u32)> =
            resized.enumerate_pixels().filter(|(.., pixel)| pixel.0[0] > 127).map(|(x, y, _)| (x, y)).collect();
        let span = |of: fn(&(u32, u32)) -> u32, side: usize| {
            let values = || bright.iter().map(of);
            [values().min().unwrap(), values().max().unwrap() + 1].map(|at| f64::from(at) / side as f64)
        };
        let ([left, right], [upper, lower]) =
            (span(|&(x, _)| x, image_size.width), span(|&(_, y)| y, image_size.height));
        let found = geometry.box_in_image((100, 60), [left, upper, right, lower]);
        let off = found.iter().zip(spot).map(|(found, wanted)| found.abs_diff(wanted)).max().unwrap();
        assert!(off <= 1, "{resize:?}: {found:?}");
        assert_eq!(geometry.box_in_image((100, 60), [-9.0, -9.0, 9.0, 9.0]), [0, 0, 100, 60], "{resize:?}");
    }
}
