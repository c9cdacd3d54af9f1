//! DICOM: the first frame as grey or colour, as a viewer shows it first.
//!
//! `grey.rs` has the steps from stored values to grey, `elements.rs` the elements of a file. Of the header, only what these
//! steps need is taken into memory, and the patient's ID where images are to be grouped by it; nothing of it is written
//! anywhere.

mod elements;
mod grey;

use super::decode_memory::{Decoded, Room};
use super::image_error::ImageError;
use super::storage::Storage;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::{FileDicomObject, InMemDicomObject};
use dicom_pixeldata::{DecodedPixelData, PixelDecoder, PlanarConfiguration};
use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry};
use elements::read;
use image::RgbImage;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What an image is made of.
const NEEDED: [Tag; 24] = [
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::VOILUT_FUNCTION,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::MODALITY_LUT_SEQUENCE,
    tags::VOILUT_SEQUENCE,
    tags::LUT_DESCRIPTOR,
    tags::LUT_DATA,
    // Of images with many frames.
    tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    tags::FRAME_VOILUT_SEQUENCE,
    tags::PIXEL_DATA,
];
/// The way out for pixels or data in a form that is not read.
const PLAIN: &str = "write it uncompressed first, as `gdcmconv --raw` does";
/// Bytes before the letters `DICM`.
const PREAMBLE: usize = 128;

type Object = FileDicomObject<InMemDicomObject>;

/// Whether the bytes are a file of PS3.10.
pub(super) fn is_dicom(bytes: &[u8]) -> bool {
    bytes.get(PREAMBLE..PREAMBLE + 4) == Some(b"DICM")
}

/// Whether a file is one of PS3.10, by its first bytes, and no index of others (`DICOMDIR`).
pub(super) fn is_image_file(path: &Path) -> bool {
    let is_index = path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR"));
    if is_index || !path.is_file() {
        return false;
    }
    let mut head = [0; PREAMBLE + 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && is_dicom(&head)
}

/// Decodes the first frame.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, ImageError> {
    let object = read(bytes, &NEEDED)?;
    check_compression(&object)?;
    let (width, height) = size(&object)?;
    let room = Room::for_image(width.into(), height.into())?;
    if is_jpeg(&object) {
        check_jpeg(&object, (width, height))?;
    }
    let stored = object.decode_pixel_data_frame(0).map_err(unsupported)?;
    let storage = |channels| Storage { format: "DICOM", channels, bits: stored.bits_stored() as u8, peak: None };
    let frame = stored.frame_data(0).map_err(|_| ImageError::Truncated("it has fewer pixels than its header says"))?;
    let (pixels, storage) = match stored.samples_per_pixel() {
        1 => {
            (grey::shown(&object, &stored, frame)?.into_iter().flat_map(|value| [value; 3]).collect(), storage("grey"))
        }
        3 => (colour(&object, &stored, frame)?, storage("colour")),
        other => {
            return Err(ImageError::Unsupported(format!(
                "it has {other} samples per pixel, and 1 or 3 are read; save it as PNG"
            )));
        }
    };
    let image = RgbImage::from_raw(width, height, pixels);
    let image = image.ok_or(ImageError::Truncated("it has fewer pixels than its header says"))?;
    Ok(Decoded { image, storage, room })
}

/// Width and height as the header says; none when it cannot be read.
pub(super) fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    size(&read(bytes, &[tags::ROWS, tags::COLUMNS]).ok()?).ok()
}

/// The patient's ID; none where there is none, or no DICOM.
pub(super) fn patient(bytes: &[u8]) -> Option<String> {
    let object = read(bytes, &[tags::PATIENT_ID]).ok()?;
    let id = object.get(tags::PATIENT_ID)?.to_str().ok()?;
    let id = id.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!id.is_empty()).then(|| id.to_owned())
}

/// Refuses pixels in a compression that is not read, by its name.
fn check_compression(object: &Object) -> Result<(), ImageError> {
    let id = object.meta().transfer_syntax();
    match TransferSyntaxRegistry.get(id) {
        Some(syntax) if !syntax.can_decode_all() => Err(ImageError::Unsupported(format!(
            "its pixels are stored as {} (transfer syntax {id}), which is not read; {PLAIN}",
            syntax.name()
        ))),
        _ => Ok(()),
    }
}

fn size(object: &Object) -> Result<(u32, u32), ImageError> {
    let side = |tag: Tag, name| {
        let value = object.get(tag).and_then(|element| element.to_int::<u16>().ok());
        value.map(u32::from).ok_or_else(|| ImageError::Damaged(format!("its header has no {name}")))
    };
    Ok((side(tags::COLUMNS, "Columns")?, side(tags::ROWS, "Rows")?))
}

/// A decoder of JPEG makes room for what the picture itself claims, so that has to be what the header says.
fn check_jpeg(object: &Object, header: (u32, u32)) -> Result<(), ImageError> {
    let fragments = object.get(tags::PIXEL_DATA).and_then(|element| element.fragments());
    let Some(fragments) = fragments else { return Ok(()) };
    for first in fragments.iter().filter(|fragment| fragment.starts_with(b"\xFF\xD8")) {
        match jpeg_size(first) {
            Some(size) if size == header => {}
            Some((width, height)) => {
                return Err(ImageError::Damaged(format!(
                    "its JPEG has {width} x {height} pixels, its header says {} x {}",
                    header.0, header.1
                )));
            }
            None => return Err(ImageError::Damaged("its JPEG says no size".into())),
        }
    }
    Ok(())
}

/// Width and height in the frame header of a JPEG or JPEG-LS (0xF7).
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let &[mark, kind, high, low] = bytes.get(at..)?.first_chunk::<4>()?;
        match (mark, kind) {
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7) => {
                let &[height_high, height_low, width_high, width_low] = bytes.get(at + 5..)?.first_chunk::<4>()?;
                let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                return Some((side(width_high, width_low), side(height_high, height_low)));
            }
            (0xFF, _) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
            _ => return None,
        }
    }
}

/// Red, green and blue of one frame, pixel by pixel.
fn colour(object: &Object, stored: &DecodedPixelData<'_>, frame: &[u8]) -> Result<Vec<u8>, ImageError> {
    let text =
        |tag: Tag| object.get(tag).and_then(|element| element.to_str().ok()).unwrap_or_default().trim().to_owned();
    let colours = text(tags::PHOTOMETRIC_INTERPRETATION);
    // What a JPEG holds has become red, green and blue when it was decoded.
    if stored.bits_allocated() != 8 || !(colours == "RGB" || is_jpeg(object)) {
        let bits = stored.bits_allocated();
        return Err(ImageError::Unsupported(format!(
            "its colours are {} in {bits} bits, which are not read; save it as RGB of 8 bits, or as PNG",
            colours.escape_default()
        )));
    }
    // Plane after plane, where it is not pixel after pixel.
    if stored.planar_configuration() == PlanarConfiguration::PixelFirst {
        let plane = frame.len() / 3;
        return Ok((0..plane).flat_map(|i| [frame[i], frame[plane + i], frame[2 * plane + i]]).collect());
    }
    Ok(frame.to_vec())
}

/// Whether its pixels are a JPEG, baseline, extended or lossless.
fn is_jpeg(object: &Object) -> bool {
    object.meta().transfer_syntax().starts_with("1.2.840.10008.1.2.4.")
}

fn damaged(error: impl std::fmt::Display) -> ImageError {
    ImageError::Damaged(format!("DICOM: {error}"))
}

fn unsupported(error: impl std::fmt::Display) -> ImageError {
    ImageError::Unsupported(format!("DICOM: {error}"))
}

#[cfg(test)]
#[path = "dicom_tests.rs"]
mod tests;
