//! Single images.

use super::Table;
use crate::common::fixture;
use crate::common::workspace::{Workspace, textile};
use std::fs;
use std::path::Path;

/// A TIFF of 2 x 2 pixels in little-endian order, with these tags (number, type, count, value) beside the usual ones.
fn tiff(big: bool, photometric: u64, samples: u64) -> Vec<u8> {
    let bytes = 4 * samples;
    let (header, entry) = if big { (16, 20) } else { (8, 12) };
    let place = header + 8 * entry + 40;
    let tags = [(256, 2), (257, 2), (258, 8), (262, photometric), (273, place), (277, samples), (278, 2), (279, bytes)];
    let mut file = if big { b"II\x2b\0\x08\0\0\0\x10\0\0\0\0\0\0\0".to_vec() } else { b"II\x2a\0\x08\0\0\0".to_vec() };
    if big {
        file.extend((tags.len() as u64).to_le_bytes());
    } else {
        file.extend((tags.len() as u16).to_le_bytes());
    }
    for (tag, value) in tags {
        file.extend((tag as u16).to_le_bytes());
        file.extend(4u16.to_le_bytes());
        if big {
            file.extend(1u64.to_le_bytes());
            file.extend((value as u32).to_le_bytes());
            file.extend([0; 4]);
        } else {
            file.extend(1u32.to_le_bytes());
            file.extend((value as u32).to_le_bytes());
        }
    }
    file.extend([0; 8]);
    file.resize(place as usize, 0);
    file.extend(vec![120; bytes as usize]);
    file
}

/// A PNG with a colour profile of a gigabyte of zeros, which deflate to a copy of the last 258 bytes again and again.
fn png_with_gigabyte() -> Vec<u8> {
    const COPIES: usize = (1 << 30) / 258;
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(8, 8, image::Rgb([9, 90, 200])).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();
    // The last block, of fixed codes; a zero; then as often as wanted length 258 at distance 1; the end.
    let bits = |text: &str| text.bytes().map(|bit| bit - b'0').collect::<Vec<u8>>();
    let all = [bits("11000110000"), bits(&"1100010100000".repeat(COPIES)), bits("0000000")].concat();
    let packed = all.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | bit));
    let sum = (((1 + 258 * COPIES) % 65_521) as u32) << 16 | 1;
    let profile: Vec<u8> = b"x\0\0\x78\x01".iter().copied().chain(packed).chain(sum.to_be_bytes()).collect();
    let content = [b"iCCP", &profile[..]].concat();
    let length = (profile.len() as u32).to_be_bytes();
    // Behind the signature and the header.
    [&png[..33], &length, &content, &crc32fast::hash(&content).to_be_bytes(), &png[33..]].concat()
}

fn images() -> (Vec<u8>, Vec<u8>) {
    let read = |name: &str| fs::read(fixture("images").join(name)).unwrap();
    (read("baseline_420.jpg"), read("progressive.jpg"))
}

/// JPEG files that a lenient decoder fills with grey.
pub(super) fn damaged_jpegs() -> Vec<(&'static str, Vec<u8>)> {
    let (baseline, progressive) = images();
    let end = [0xFF, 0xD9];
    let cut = [&baseline[..baseline.len() * 2 / 3], &end].concat();
    let last = progressive.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let mut stretch = baseline.clone();
    let scan = baseline.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap() + 14;
    let middle = usize::midpoint(scan, baseline.len());
    stretch[middle..middle + 64].fill(0x11);
    vec![("cut", cut), ("scans", [&progressive[..last], &end].concat()), ("stretch", stretch)]
}

pub(super) fn rows(table: &mut Table) {
    let workspace = Workspace::new();
    let place = workspace.path("data/train/global/odd.jpg");
    table.row(&workspace, "`.jfif`, `.jpe` and other endings of JPEG, any case", "read", |row| {
        for ending in ["jfif", "jpe", "JPEG", "Jpg"] {
            let file = row.path(&format!("data/train/global/odd.{ending}"));
            fs::copy(&textile("train", "global")[20], &file).unwrap();
            row.check(&[], 0, &["37 in 3 classes"]);
            fs::remove_file(file).unwrap();
        }
    });
    table.row(&workspace, "images that are not read", "a warning with their number by class and ending", |row| {
        for ending in ["heic", "HEIF", "avif", "gif", "jp2", "jxl", "dng", "svg", "psd"] {
            let file = row.path(&format!("data/train/global/odd.{ending}"));
            fs::write(&file, "x").unwrap();
            let said = format!("1 .{} in \"global\"", ending.to_lowercase());
            row.check(&[], 0, &[&said, "36 in 3 classes"]);
            fs::remove_file(file).unwrap();
        }
    });
    table.row(&workspace, "another format under the name of a JPEG", "3, named as what it is", |row| {
        for (bytes, said) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
            (b"\xFF\x0A\xFA\x1F\x41\x91", "JPEG XL"),
            (b"\0\0\0\x0CjP  \r\n\x87\n", "JPEG 2000"),
            (b"8BPS\0\x01", "Photoshop"),
            (b"%PDF-1.7", "PDF"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"<html>not found</html>", "not an image"),
            (b"", "0 bytes"),
        ] {
            fs::write(&place, bytes).unwrap();
            row.check(&[], 3, &["odd.jpg", said]);
        }
        let dicom = [vec![0; 128], b"DICM".to_vec()].concat();
        fs::write(&place, dicom).unwrap();
        row.check(&[], 3, &["DICOM"]);
    });
    table.row(&workspace, "BigTIFF", "read", |row| {
        fs::write(&place, tiff(true, 1, 1)).unwrap();
        row.check(&[], 0, &["37 in 3 classes", "TIFF, grey"]);
    });
    table.row(
        &workspace,
        "TIFF with a palette, in CIE L\\*a\\*b\\*, of floating-point numbers",
        "3, with the reason",
        |row| {
            fs::write(&place, tiff(false, 3, 1)).unwrap();
            row.check(&[], 3, &["palette"]);
            fs::write(&place, tiff(false, 8, 3)).unwrap();
            row.check(&[], 3, &["L*a*b*"]);
            fs::copy(fixture("images/bad/float.tiff"), &place).unwrap();
            row.check(&[], 3, &["odd.jpg"]);
        },
    );
    extremes(table, &workspace, &place);
    damage(table, &workspace, &place);
    fs::remove_file(&place).unwrap();
    special(table, &workspace);
}

fn extremes(table: &mut Table, workspace: &Workspace, place: &Path) {
    table.row(
        workspace,
        "bombs: gigantic sizes in small files (PNG, JPEG, BMP, TIFF)",
        "3, nothing allocated",
        |row| {
            for name in ["bomb.png", "bomb.jpg", "bomb.bmp", "huge_width.tiff"] {
                fs::copy(fixture("images/bad").join(name), place).unwrap();
                row.check(&[], 3, &["odd.jpg"]);
            }
        },
    );
    table.row(workspace, "images of 1 x 1, 60000 x 1, 1 x 60000 pixels", "read", |row| {
        for (width, height) in [(1, 1), (60_000, 1), (1, 60_000)] {
            let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
            image.save_with_format(place, image::ImageFormat::Png).unwrap();
            row.check(&[], 0, &["37 in 3 classes"]);
        }
    });
    table.row(
        workspace,
        "a PNG of 7 MB whose colour profile unpacks to a gigabyte",
        "read, without the profile",
        |row| {
            fs::write(place, png_with_gigabyte()).unwrap();
            row.check(&[], 0, &["37 in 3 classes"]);
        },
    );
    table.row(workspace, "a TIFF whose folders of tags go in a circle", "3", |row| {
        let mut file = fs::read(fixture("images/rgb_lzw.tiff")).unwrap();
        let first = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
        let next = first + 2 + 12 * usize::from(u16::from_le_bytes([file[first], file[first + 1]]));
        file.copy_within(4..8, next);
        fs::write(place, file).unwrap();
        row.check(&[], 3, &["odd.jpg", "cycle"]);
    });
}

fn damage(table: &mut Table, workspace: &Workspace, place: &Path) {
    let what = "a JPEG cut short with an end marker put behind it, without its last scans, with a damaged stretch";
    table.row(workspace, what, "3, damaged", |row| {
        for (_, bytes) in damaged_jpegs() {
            fs::write(place, bytes).unwrap();
            row.check(&[], 3, &["odd.jpg", "damaged"]);
        }
    });
    table.row(workspace, "the same with `data.on_error = \"skip\"`", "left out, and said", |row| {
        for (_, bytes) in damaged_jpegs() {
            fs::write(place, bytes).unwrap();
            row.check(&["data.on_error=skip"], 0, &["36 in 3 classes", "odd.jpg"]);
        }
    });
}

#[cfg(unix)]
fn special(table: &mut Table, workspace: &Workspace) {
    use std::os::unix::fs::symlink;
    table.row(workspace, "a pipe, a device, a dead link, a link in a circle as an image", "3 at once", |row| {
        let place = row.path("data/train/global/odd.jpg");
        super::weights::pipe(&place);
        row.check(&[], 3, &["odd.jpg"]);
        for target in ["/dev/zero", "/nowhere", "odd.jpg"] {
            fs::remove_file(&place).unwrap();
            symlink(target, &place).unwrap();
            row.check(&[], 3, &["odd.jpg"]);
        }
        fs::remove_file(&place).unwrap();
    });
}

#[cfg(not(unix))]
fn special(_: &mut Table, _: &Workspace) {}
