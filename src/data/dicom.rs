//! DICOM: the first frame as grey or colour, as a viewer shows it first.
//!
//! Stored values become 8-bit grey by the steps of the standard: bits stored with their sign, rescale slope and intercept
//! (PS3.3 C.11.1), the first window by its function (C.11.2), `MONOCHROME1` inverted. Without a window the least value of
//! the image is black and the largest white. Of the header, only what these steps need is taken into memory, and the
//! patient's ID where images are to be grouped by it; nothing of it is written anywhere.

use super::readable::ImageError;
use super::room::{Decoded, Room};
use super::storage::Storage;
use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileDicomObject, FileMetaTable, InMemDicomObject};
use dicom_parser::DynStatefulDecoder;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_pixeldata::{
    DecodedPixelData, PixelDecoder, PixelRepresentation, PlanarConfiguration, VoiLutFunction, WindowLevel,
};
use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry};
use image::RgbImage;
use std::io::Cursor;

/// What an image is made of.
const NEEDED: [Tag; 15] = [
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
];
const PALETTE: &str = "its pixels are indices into a palette, which is not read in DICOM; save it as RGB, or as PNG";
/// The way out for pixels or data in a form that is not read.
const PLAIN: &str = "write it uncompressed first, as `gdcmconv --raw` does";
/// Bytes before the letters `DICM`.
const PREAMBLE: usize = 128;

type Object = FileDicomObject<InMemDicomObject>;

/// Whether the bytes are a file of PS3.10.
pub(super) fn is_dicom(bytes: &[u8]) -> bool {
    bytes.get(PREAMBLE..PREAMBLE + 4) == Some(b"DICM")
}

/// Decodes the first frame.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, ImageError> {
    let mut wanted = NEEDED.to_vec();
    wanted.push(tags::PIXEL_DATA);
    let object = read(bytes, &wanted)?;
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
        1 => (grey(&stored, frame)?.into_iter().flat_map(|value| [value; 3]).collect(), storage("grey")),
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

/// Those of the wanted elements that are there, which come in the order of their tags. Elements within sequences are passed
/// over one by one: however deep they are nested, and whatever length they claim, memory stays within that of the file.
fn read(bytes: &[u8], wanted: &[Tag]) -> Result<Object, ImageError> {
    if !is_dicom(bytes) {
        return Err(ImageError::NotAnImage);
    }
    check_meta(&bytes[PREAMBLE + 4..])?;
    let mut source = Cursor::new(&bytes[PREAMBLE..]);
    let meta = FileMetaTable::from_reader(&mut source).map_err(damaged)?;
    let syntax = meta.transfer_syntax();
    let syntax = TransferSyntaxRegistry.get(syntax).filter(|syntax| syntax.can_decode_dataset()).ok_or_else(|| {
        ImageError::Unsupported(format!("its transfer syntax {} is not read; {PLAIN}", syntax.escape_default()))
    })?;
    let mut elements = LazyDataSetReader::new_with_ts(source, syntax).map_err(damaged)?;
    let mut object = FileDicomObject::new_empty_with_meta(meta);
    let last = wanted.iter().max().copied().unwrap_or(tags::PIXEL_DATA);
    let mut depth = 0_usize;
    while let Some(token) = elements.advance() {
        match token.map_err(damaged)? {
            LazyDataToken::ElementHeader(header) => {
                if depth == 0 && header.tag > last {
                    break;
                }
                // A value is read into memory of the length that it claims.
                if header.len.get().is_some_and(|length| length as usize > bytes.len()) {
                    return Err(ImageError::Truncated("a value is longer than the file"));
                }
            }
            LazyDataToken::SequenceStart { tag, .. } => {
                if depth == 0 && tag > last {
                    break;
                }
                depth += 1;
            }
            LazyDataToken::PixelSequenceStart if depth == 0 && wanted.contains(&tags::PIXEL_DATA) => {
                let fragments = fragments(&mut elements, bytes.len())?;
                object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
                break;
            }
            LazyDataToken::PixelSequenceStart | LazyDataToken::ItemStart { .. } => depth += 1,
            LazyDataToken::SequenceEnd | LazyDataToken::ItemEnd => depth = depth.saturating_sub(1),
            LazyDataToken::LazyValue { header, decoder } => {
                let token = LazyDataToken::LazyValue { header, decoder };
                if depth == 0 && wanted.contains(&header.tag) {
                    object.put(DataElement::new(header.tag, header.vr, token.into_value().map_err(damaged)?));
                } else {
                    token.skip().map_err(damaged)?;
                }
            }
            token => token.skip().map_err(damaged)?,
        }
    }
    Ok(object)
}

/// Refuses values of the first group, which is always written explicitly and in little endian, that claim more than there
/// is: a value is read into memory of the length that it claims.
fn check_meta(bytes: &[u8]) -> Result<(), ImageError> {
    /// Kinds of values with a length of two bytes; all others, known or not, have four.
    const SHORT: [&[u8; 2]; 21] = [
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
        b"ST", b"TM", b"UI", b"UL", b"US",
    ];
    let number = |at: usize, n: usize| {
        let digits = bytes.get(at..at + n)?;
        Some(digits.iter().rev().fold(0, |number, &digit| number << 8 | usize::from(digit)))
    };
    let mut at = 0;
    while number(at, 2) == Some(2) {
        let short = bytes.get(at + 4..at + 6).is_some_and(|vr| SHORT.iter().any(|short| short.as_slice() == vr));
        let (length, head) = if short { (number(at + 6, 2), 8) } else { (number(at + 8, 4), 12) };
        at += head + length.ok_or(ImageError::Truncated("its header ends too early"))?;
        if at > bytes.len() {
            return Err(ImageError::Truncated("a value is longer than the file"));
        }
    }
    Ok(())
}

/// The fragments of pixels that are stored compressed; the first item lists where frames begin.
fn fragments(
    elements: &mut LazyDataSetReader<DynStatefulDecoder<Cursor<&[u8]>>>,
    file: usize,
) -> Result<PixelFragmentSequence<Vec<u8>>, ImageError> {
    let mut items: Vec<Vec<u8>> = Vec::new();
    while let Some(token) = elements.advance() {
        match token.map_err(damaged)? {
            LazyDataToken::ItemStart { len } => {
                if len.get().is_some_and(|length| length as usize > file) {
                    return Err(ImageError::Truncated("a fragment of its pixels is longer than the file"));
                }
                items.push(Vec::new());
            }
            LazyDataToken::LazyItemValue { len, decoder } => {
                let token = LazyDataToken::LazyItemValue { len, decoder };
                let item = items.last_mut().ok_or(ImageError::Damaged("its pixels have no items".into()))?;
                token.read_value_into(item).map_err(damaged)?;
            }
            LazyDataToken::SequenceEnd => break,
            token => token.skip().map_err(damaged)?,
        }
    }
    if items.is_empty() {
        return Err(ImageError::Truncated("its pixels have no items"));
    }
    let offsets = items.remove(0);
    let offsets: Vec<u32> =
        offsets.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
    Ok(PixelFragmentSequence::new(offsets, items))
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

/// Grey values of one frame.
fn grey(stored: &DecodedPixelData<'_>, frame: &[u8]) -> Result<Vec<u8>, ImageError> {
    let bits = u32::from(stored.bits_stored());
    let allocated = u32::from(stored.bits_allocated());
    if !matches!(allocated, 8 | 16) || bits == 0 || bits > allocated {
        return Err(ImageError::Unsupported(format!(
            "it has {bits} of {allocated} bits a pixel, and 8 and 16 are read; save it as PNG"
        )));
    }
    let inverted = match stored.photometric_interpretation().as_str() {
        "MONOCHROME1" => true,
        "MONOCHROME2" => false,
        "PALETTE COLOR" => return Err(ImageError::Unsupported(PALETTE.into())),
        other => {
            return Err(ImageError::Unsupported(format!(
                "its colours are {}, which are not read; save it as RGB, or as PNG",
                other.escape_default()
            )));
        }
    };
    let above = (u32::from(stored.high_bit()) + 1).clamp(bits, allocated) - bits;
    let signed = stored.pixel_representation() == PixelRepresentation::Signed;
    let value = |raw: u32| {
        let value = i64::from((raw >> above) & ((1 << bits) - 1));
        (if signed && value >> (bits - 1) == 1 { value - (1 << bits) } else { value }) as f64
    };
    let rescale = stored.rescale().ok().and_then(|all| all.first().copied());
    let rescaled = |raw: u32| rescale.map_or_else(|| value(raw), |rescale| rescale.apply(value(raw)));
    let raw: Vec<u32> = if allocated == 8 {
        frame.iter().map(|&byte| u32::from(byte)).collect()
    } else {
        frame.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).collect()
    };
    let window = stored.window().ok().flatten().and_then(|windows| windows.first().copied());
    let function = stored.voi_lut_function().ok().flatten().and_then(|all| all.first().copied()).unwrap_or_default();
    let shown: Box<dyn Fn(f64) -> f64> = if let Some(window) = window {
        Box::new(move |value| through_window(value, window, function))
    } else {
        let ends = raw
            .iter()
            .map(|&raw| rescaled(raw))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        Box::new(move |value| if ends.1 > ends.0 { (value - ends.0) / (ends.1 - ends.0) } else { 0.0 })
    };
    // There are at most 65,536 different values.
    let table: Vec<u8> = (0..1_u32 << allocated)
        .map(|raw| {
            let shown = shown(rescaled(raw)).clamp(0.0, 1.0);
            (255.0 * if inverted { 1.0 - shown } else { shown }).round() as u8
        })
        .collect();
    Ok(raw.into_iter().map(|raw| table[raw as usize]).collect())
}

/// From 0 to 1, by PS3.3 C.11.2.1.2 and C.11.2.1.3.
fn through_window(value: f64, WindowLevel { center, width }: WindowLevel, function: VoiLutFunction) -> f64 {
    match function {
        VoiLutFunction::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
        VoiLutFunction::Linear if width > 1.0 => (value - (center - 0.5)) / (width - 1.0) + 0.5,
        VoiLutFunction::Linear if width == 1.0 => f64::from(u8::from(value > center - 0.5)),
        VoiLutFunction::Linear | VoiLutFunction::LinearExact => (value - center) / width + 0.5,
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
