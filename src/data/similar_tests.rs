use super::*;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use std::path::Path;

fn textile() -> Vec<RgbImage> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/textile");
    let mut files: Vec<_> = ["train", "val", "test"]
        .iter()
        .flat_map(|split| ["global", "local", "nominal"].map(|class| folder.join(split).join(class)))
        .flat_map(|folder| folder.read_dir().unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    files.sort();
    files.iter().map(|file| image::open(file).unwrap().into_rgb8()).collect()
}

fn reencoded(image: &RgbImage) -> RgbImage {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, 30).encode_image(image).unwrap();
    image::load_from_memory(&file).unwrap().into_rgb8()
}

/// Without `percent` of the side at each edge.
fn cropped(image: &RgbImage, percent: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let (x, y) = (width * percent / 100, height * percent / 100);
    imageops::crop_imm(image, x, y, width - 2 * x, height - 2 * y).to_image()
}

fn halved(image: &RgbImage) -> RgbImage {
    imageops::resize(image, image.width() / 2, image.height() / 2, FilterType::Triangle)
}

fn pairs_of(signatures: &[Signature]) -> Vec<Twins> {
    near_pairs(&signatures.iter().collect::<Vec<_>>(), 2).twins
}

#[test]
fn different_images_of_one_texture_are_not_near() {
    let signatures: Vec<Signature> = textile().iter().map(|image| signature(image).unwrap()).collect();
    assert_eq!(signatures.len(), 360);
    assert_eq!(pairs_of(&signatures), []);
}

#[test]
fn altered_copies_are_near() {
    let images: Vec<RgbImage> = textile().into_iter().step_by(6).collect();
    let found = |alter: &dyn Fn(&RgbImage) -> RgbImage| {
        let near = |image: &&RgbImage| {
            let (original, copy) = (signature(image).unwrap(), signature(&alter(image)).unwrap());
            likeness(&original, &copy).is_near()
        };
        images.iter().filter(near).count() as f64 / images.len() as f64
    };
    assert_eq!(found(&reencoded), 1.0);
    assert_eq!(found(&|image| imageops::brighten(image, 40)), 1.0);
    assert_eq!(found(&|image| imageops::contrast(image, -30.0)), 1.0);
    assert_eq!(found(&halved), 1.0);
    assert_eq!(found(&|image| cropped(image, 1)), 1.0);
    assert!(found(&|image| cropped(image, 2)) > 0.9);
    assert!(found(&imageops::rotate180) < 0.1, "a turned picture is another one");
}

#[test]
fn pairs_are_found_wherever_they_stand() {
    let images = textile();
    let mut signatures: Vec<Signature> = images[..20].iter().map(|image| signature(image).unwrap()).collect();
    signatures.insert(3, signature(&reencoded(&images[11])).unwrap());
    let pairs = pairs_of(&signatures);
    assert_eq!(pairs.iter().map(|pair| (pair.first, pair.second)).collect::<Vec<_>>(), [(3, 12)]);
    let likeness = pairs[0].likeness.unwrap();
    assert!(likeness.bits <= 4 && likeness.correlation > 0.99, "{pairs:?}");
}

#[test]
fn the_surest_come_first() {
    let images = textile();
    let mut signatures: Vec<Signature> = images[..60].iter().map(|image| signature(image).unwrap()).collect();
    signatures.extend([cropped(&images[2], 1), reencoded(&images[9])].map(|copy| signature(&copy).unwrap()));
    let pairs = pairs_of(&signatures);
    assert_eq!(pairs.iter().map(|pair| (pair.first, pair.second)).collect::<Vec<_>>(), [(9, 61), (2, 60)]);
    let relative: Vec<f64> = pairs.iter().map(|pair| pair.likeness.unwrap().relative_distance.unwrap()).collect();
    assert!(relative[0] < 0.02 && relative[1] > 0.02, "{relative:?}");
}

/// Parts of one kind in one position, as in a fixture: bars that all share, a gradient of the light, and a texture of
/// their own whose strength differs.
fn parts(n: u64) -> Vec<RgbImage> {
    let mut stream = crate::rng::Stream::new(7, crate::rng::Purpose::Split, &[]);
    let mut unit = || stream.uniform() as f32;
    (0..n)
        .map(|_| {
            let (slope, texture) = (unit() - 0.5, 6.0 + 6.0 * unit());
            let waves: Vec<[f32; 4]> =
                (0..12).map(|_| [0.2 + 0.3 * unit(), 0.2 + 0.3 * unit(), 6.3 * unit(), unit()]).collect();
            RgbImage::from_fn(100, 100, |x, y| {
                let (x, y) = (x as f32, y as f32);
                let bar = if (y as i32 % 33) < 3 { -70.0 } else { 0.0 };
                let own: f32 = waves.iter().map(|[a, b, phase, size]| size * (a * x + b * y + phase).sin()).sum();
                let light = 60.0 * (x / 31.0).sin() * (y / 23.0).cos();
                Rgb([(150.0 + bar + light + 0.4 * slope * x + texture * own / 3.0).clamp(0.0, 255.0) as u8; 3])
            })
        })
        .collect()
}

#[test]
fn parts_in_a_fixture_are_told_from_copies() {
    let mut images = parts(300);
    for index in 0..12 {
        let copy = if index % 2 == 0 { imageops::brighten(&images[7 * index], 12) } else { halved(&images[7 * index]) };
        images.push(copy);
    }
    let signatures: Vec<Signature> = images.iter().map(|image| signature(image).unwrap()).collect();
    let found = near_pairs(&signatures.iter().collect::<Vec<_>>(), 2);
    let planted = |pair: &&Twins| pair.second >= 300 && pair.first == 7 * (pair.second - 300);
    assert!(found.look_alikes > 5_000, "{} look alike", found.look_alikes);
    assert_eq!(found.twins.iter().take(12).filter(planted).count(), 12, "{:?}", found.twins);
    assert!(found.twins.len() <= 14, "{} pairs", found.twins.len());
    assert_eq!(found, near_pairs(&signatures.iter().collect::<Vec<_>>(), 1), "threads change nothing");
}

#[test]
fn in_a_set_of_one_picture_no_pair_stands_out() {
    let signature = signature(&textile()[0]).unwrap();
    let found = near_pairs(&vec![&signature; 150], 2);
    assert_eq!((found.twins.len(), found.look_alikes), (0, 11_175));
    assert_eq!(near_pairs(&[&signature; 4], 2).twins.len(), 6, "a few images: each pair by itself");
}

#[test]
fn flat_pictures_are_like_nothing() {
    let flat = |shade: u8| signature(&RgbImage::from_pixel(40, 30, Rgb([shade; 3]))).unwrap();
    let likeness = likeness(&flat(20), &flat(200));
    assert_eq!(likeness.correlation, 0.0);
    assert!(!likeness.is_near() && pairs_of(&[flat(20), flat(20)]).is_empty());
    assert!(signature(&RgbImage::new(0, 0)).is_err());
}
