use super::*;
use crate::data::testing::fixture;

/// Largest and mean absolute difference of two images of one size.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences: Vec<u8> = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    (differences.into_iter().max().unwrap(), mean)
}

/// What Pillow makes of a fixture; see `tests/fixtures/make_image_fixtures.py`.
fn by_pillow(name: &str) -> RgbImage {
    image::open(fixture(&format!("decoded/{name}.png"))).unwrap().into_rgb8()
}

#[test]
fn lossless_formats_equal_pillow() {
    for name in [
        "rgb.png", "grey.png", "bilevel.png", "alpha.png", "grey_alpha.png", "palette.png", "palette_transparent.png",
        "oriented.png", "animated.png", "grey16.png", "rgb16.png", "rgb.bmp", "palette.bmp", "rgb_lzw.tiff",
        "grey_deflate.tiff", "bilevel.tiff", "oriented.tiff", "pages.tiff", "grey16.tiff", "lossless.webp",
        "alpha.webp", "oriented.webp", "animated.webp",
    ] {
        let image = decode_file(&fixture(name), DecodeOptions::default()).unwrap_or_else(|e| panic!("{name} {e}"));
        assert_eq!(difference(&image, &by_pillow(name)), (0, 0.0), "{name}");
    }
}

#[test]
fn dicom_files_equal_pydicom() {
    let folder = fixture("").read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> =
        folder.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "dcm")).collect();
    assert!(names.len() >= 22, "{names:?}");
    for name in names {
        let Decoded { image, storage, .. } =
            decode_described(&read(&fixture(&name)).unwrap(), DecodeOptions::default())
                .unwrap_or_else(|e| panic!("{name} {e}"));
        // Decoders of JPEG round differently.
        let most = u8::from(name == "dicom_jpeg.dcm");
        assert!(difference(&image, &by_pillow(&name)).0 <= most, "{name}");
        assert_eq!((storage.format, dimensions(&fixture(&name))), ("DICOM", Some((27, 18))), "{name}");
    }
}

/// Colours by the decoder of libjpeg-turbo; inks are made colours of by ours.
#[test]
fn jpeg_equals_pillow() {
    let names =
        ["baseline_420.jpg", "baseline_444.jpg", "progressive.jpg", "restarts.jpg", "grey.jpg", "cmyk.jpg", "ycck.jpg"];
    for name in names {
        let image = decode_file(&fixture(name), DecodeOptions::default()).unwrap_or_else(|e| panic!("{name} {e}"));
        assert_eq!(difference(&image, &by_pillow(name)).0, 0, "{name}");
    }
}

/// The decoders round the colour conversion differently.
#[test]
fn lossy_webp_is_near_pillow() {
    let image = decode_file(&fixture("lossy.webp"), DecodeOptions::default()).unwrap();
    let (max, mean) = difference(&image, &by_pillow("lossy.webp"));
    assert!(max <= 4 && mean <= 0.6, "max {max}, mean {mean}");
}

#[test]
fn all_orientations_are_applied() {
    for value in 1..=8 {
        let name = format!("exif_{value}.jpg");
        let image = decode_file(&fixture(&name), DecodeOptions::default()).unwrap();
        let (max, mean) = difference(&image, &by_pillow(&name));
        assert!(max <= 4 && mean <= 0.6, "{name}: max {max}, mean {mean}");
    }
}

#[test]
fn bit_depth_decides_what_is_white() {
    let twelve = DecodeOptions { bit_depth: 12 };
    let image = decode_file(&fixture("grey12.png"), twelve).unwrap();
    assert_eq!(difference(&image, &by_pillow("grey12.png")), (0, 0.0));
    assert_eq!(image.get_pixel(26, 17).0, [255; 3]);
    let as_sixteen = decode_file(&fixture("grey12.png"), DecodeOptions::default()).unwrap();
    assert_eq!(as_sixteen.get_pixel(26, 17).0, [16; 3]);
    // Values above the stated depth are clipped, not wrapped.
    let clipped = decode_file(&fixture("grey16.png"), DecodeOptions { bit_depth: 8 }).unwrap();
    assert_eq!(clipped.get_pixel(26, 17).0, [255; 3]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let names =
        ["baseline_420.jpg", "progressive.jpg", "restarts.jpg", "exif_1.jpg", "grey.png", "rgb.bmp", "lossless.webp"];
    for name in names {
        let bytes = std::fs::read(fixture(name)).unwrap();
        // PNG and WebP may end in bytes that carry no pixels.
        let tail = if name.ends_with("png") { 12 } else { usize::from(name.ends_with("webp")) * 2 };
        for length in 0..bytes.len() - tail {
            assert!(decode(&bytes[..length], DecodeOptions::default()).is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn a_cut_jpeg_with_a_thumbnail_is_refused() {
    // An end-of-image marker inside a segment is not the end of the image.
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x06, 0xFF, 0xD8, 0xFF, 0xD9];
    let picture = std::fs::read(fixture("baseline_420.jpg")).unwrap();
    bytes.extend_from_slice(&picture[2..]);
    assert!(jpeg::reaches_end(&bytes));
    for length in 0..bytes.len() - 1 {
        assert!(!jpeg::reaches_end(&bytes[..length]), "cut at {length}");
    }
}

#[test]
fn bad_files_say_why() {
    let cases = [
        ("bad/bomb.png", "60000 x 60000"),
        ("bad/bomb.jpg", "60000 x 60000"),
        ("bad/bomb.bmp", "60000 x 60000"),
        ("bad/huge_width.tiff", "4000000000 x 18"),
        ("bad/float.tiff", "cannot be converted"),
        ("bad/palette.tiff", "indices into a palette"),
        ("bad/animation.gif", "is a GIF file"),
        ("bad/text.jpg", "is not an image"),
        ("bad/empty.png", "is empty"),
    ];
    for (name, reason) in cases {
        let error = decode_file(&fixture(name), DecodeOptions::default()).unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
    let folder = decode_file(&fixture(""), DecodeOptions::default()).unwrap_err();
    assert!(matches!(folder, ImageError::NotAFile), "{folder}");
    let missing = decode_file(&fixture("no such file.png"), DecodeOptions::default()).unwrap_err();
    assert!(matches!(missing, ImageError::Unreadable(_)), "{missing}");
}

#[test]
fn formats_that_are_not_read_are_called_what_they_are() {
    let cases: [(&[u8], &str); 5] = [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC (HEIF) file"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "is a AVIF file"),
        (b"8BPS\0\x01", "is a Photoshop (PSD) file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\0\0\x0CjP  \r\n", "is a JPEG 2000 file"),
    ];
    for (bytes, reason) in cases {
        let error = decode(bytes, DecodeOptions::default()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for name in [
        "progressive.jpg", "baseline_420.jpg", "rgb.png", "rgb_lzw.tiff", "lossy.webp", "palette.bmp", "dicom_ct.dcm",
        "dicom_ct_implicit.dcm", "dicom_rle.dcm", "dicom_jpeg.dcm",
    ] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        // Of pixels that are stored as they are, which may have any value, a few.
        let pixels = if name.starts_with("dicom_ct") { 27 * 18 * 2 } else { 0 };
        for at in (0..bytes.len()).filter(|at| at + pixels < bytes.len() || at % 16 == 0) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            // Either an error or some image: a changed pixel cannot be noticed in every format.
            let _ = decode(&damaged, DecodeOptions::default());
        }
    }
}

/// The places of a marker in a stream without thumbnails.
fn markers(bytes: &[u8], marker: u8) -> Vec<usize> {
    (0..bytes.len() - 1).filter(|&at| bytes[at] == 0xFF && bytes[at + 1] == marker).collect()
}

#[test]
fn a_jpeg_holds_all_of_its_image() {
    let whole = |bytes: &[u8]| decode_described(bytes, DecodeOptions::default()).map(|_| ());
    let mut names: Vec<String> = (1..=8).map(|value| format!("exif_{value}.jpg")).collect();
    names.extend(
        ["baseline_420.jpg", "baseline_444.jpg", "progressive.jpg", "restarts.jpg", "grey.jpg", "cmyk.jpg", "ycck.jpg"]
            .map(String::from),
    );
    for name in names {
        let bytes = std::fs::read(fixture(&name)).unwrap();
        whole(&bytes).unwrap_or_else(|error| panic!("{name} {error}"));
        // Cut in the last scan, with an end marker put behind.
        let scan = *markers(&bytes, 0xDA).last().unwrap() + 16;
        let mut undetected = 0;
        for length in scan..bytes.len() - 4 {
            undetected += usize::from(whole(&[&bytes[..length], &[0xFF, 0xD9]].concat()).is_ok());
        }
        // A few bits may be read as another ending of the same blocks.
        assert!(undetected <= 2, "{name}: {undetected} of {}", bytes.len().saturating_sub(scan));
    }
    for file in walkdir::WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/textile")) {
        let file = file.unwrap().into_path();
        if file.extension().is_some_and(|extension| extension == "jpg") {
            let bytes = std::fs::read(&file).unwrap();
            jpeg::check(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
    let bytes = std::fs::read(fixture("progressive.jpg")).unwrap();
    for scan in markers(&bytes, 0xDA).into_iter().skip(1) {
        let error = whole(&[&bytes[..scan], &[0xFF, 0xD9]].concat()).unwrap_err().to_string();
        assert!(error.contains("last scans are missing"), "{error}");
    }
    let mut bytes = std::fs::read(fixture("baseline_444.jpg")).unwrap();
    let (start, end) = (markers(&bytes, 0xDA)[0] + 14, bytes.len() - 2);
    let middle = usize::midpoint(start, end);
    bytes[middle..middle + 24].fill(0);
    let error = whole(&bytes).unwrap_err();
    assert!(matches!(error, ImageError::Damaged(_)), "{error}");
}
