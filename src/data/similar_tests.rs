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

fn pairs_of(signatures: &[Signature]) -> Vec<NearPair> {
    near_pairs(&signatures.iter().collect::<Vec<_>>())
}

#[test]
fn different_images_of_one_texture_are_not_near() {
    let signatures: Vec<Signature> = textile().iter().map(|image| Signature::of(image).unwrap()).collect();
    assert_eq!(signatures.len(), 360);
    assert_eq!(pairs_of(&signatures), []);
}

#[test]
fn altered_copies_are_near() {
    let images: Vec<RgbImage> = textile().into_iter().step_by(6).collect();
    let found = |alter: &dyn Fn(&RgbImage) -> RgbImage| {
        let near = |image: &&RgbImage| {
            let (original, copy) = (Signature::of(image).unwrap(), Signature::of(&alter(image)).unwrap());
            original.likeness(&copy).is_near()
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
    let mut signatures: Vec<Signature> = images[..20].iter().map(|image| Signature::of(image).unwrap()).collect();
    signatures.insert(3, Signature::of(&reencoded(&images[11])).unwrap());
    let pairs = pairs_of(&signatures);
    assert_eq!(pairs.iter().map(|pair| (pair.first, pair.second)).collect::<Vec<_>>(), [(3, 12)]);
    assert!(pairs[0].likeness.bits <= 4 && pairs[0].likeness.correlation > 0.99, "{pairs:?}");
}

#[test]
fn a_set_of_look_alikes_ends_the_search() {
    let signature = Signature::of(&textile()[0]).unwrap();
    assert_eq!(near_pairs(&vec![&signature; 150]).len(), MOST_PAIRS); // of 11,175
    assert_eq!(near_pairs(&vec![&signature; 141]).len(), 9870);
}

#[test]
fn flat_pictures_are_like_nothing() {
    let flat = |shade: u8| Signature::of(&RgbImage::from_pixel(40, 30, Rgb([shade; 3]))).unwrap();
    let likeness = flat(20).likeness(&flat(200));
    assert_eq!(likeness.correlation, 0.0);
    assert!(!likeness.is_near() && pairs_of(&[flat(20), flat(20)]).is_empty());
    assert!(Signature::of(&RgbImage::new(0, 0)).is_err());
}
