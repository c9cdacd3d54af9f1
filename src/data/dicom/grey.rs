//! From stored values to the grey that a viewer shows first, by the steps of PS3.3.
//!
//! Bits stored with their sign; the modality's table, or its slope and intercept (C.11.1); the first table of the values of
//! interest, or else the first window by its function (C.11.2); `MONOCHROME1` inverted. With neither table nor window the
//! least value of the image is black and the largest white. Images with many frames have these for each frame or for all.
//!
//! `dicom-pixeldata` has no table of the modality, takes a value that it cannot read for none, rounds down, and takes signed
//! values for unsigned ones where there is no window.

use super::Object;
use crate::data::image_error::ImageError;
use dicom_core::header::HasLength;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use dicom_pixeldata::{DecodedPixelData, PixelRepresentation, VoiLutFunction};

const PALETTE: &str = "its pixels are indices into a palette, which is not read in DICOM; save it as RGB, or as PNG";
/// The way out of a header with a fault.
const CORRECT: &str = "correct its header, or save it as PNG";

/// Grey values of one frame.
pub(super) fn shown(object: &Object, stored: &DecodedPixelData<'_>, frame: &[u8]) -> Result<Vec<u8>, ImageError> {
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
    let tag = tags::MODALITY_LUT_SEQUENCE;
    let table = Table::first("Modality LUT Sequence", tag, object.get(tag), signed)?;
    let rescaled: Box<dyn Fn(f64) -> f64> = if let Some(table) = table {
        Box::new(move |value| table.at(value))
    } else {
        let group = tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE;
        let slope = number(object, group, tags::RESCALE_SLOPE, "Rescale Slope")?.unwrap_or(1.0);
        let intercept = number(object, group, tags::RESCALE_INTERCEPT, "Rescale Intercept")?.unwrap_or(0.0);
        Box::new(move |value| slope * value + intercept)
    };
    // There are at most 65,536 different values.
    let values: Vec<f64> = (0..1_u32 << allocated).map(|raw| rescaled(value(raw))).collect();
    let raw: Vec<usize> = if allocated == 8 {
        frame.iter().map(|&byte| usize::from(byte)).collect()
    } else {
        frame.chunks_exact(2).map(|pair| usize::from(u16::from_ne_bytes([pair[0], pair[1]]))).collect()
    };
    let below_zero = values.iter().any(|&value| value < 0.0);
    let tag = tags::VOILUT_SEQUENCE;
    let table = Table::first("VOI LUT Sequence", tag, element(object, tags::FRAME_VOILUT_SEQUENCE, tag), below_zero)?;
    let shown: Box<dyn Fn(f64) -> f64> = if let Some(table) = table {
        Box::new(move |value| table.at(value) / table.white)
    } else if let Some(window) = Window::first(object)? {
        Box::new(move |value| window.at(value))
    } else {
        let ends = raw
            .iter()
            .map(|&raw| values[raw])
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        Box::new(move |value| if ends.1 > ends.0 { (value - ends.0) / (ends.1 - ends.0) } else { 0.0 })
    };
    let grey: Vec<u8> = values
        .into_iter()
        .map(|value| {
            let shown = shown(value).clamp(0.0, 1.0);
            (255.0 * if inverted { 1.0 - shown } else { shown }).round() as u8
        })
        .collect();
    Ok(raw.into_iter().map(|raw| grey[raw]).collect())
}

/// An element of the image, or else that of the first frame, or else that of all frames, which have it in a group.
fn element(object: &Object, group: Tag, tag: Tag) -> Option<&InMemElement> {
    let frames = [tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE];
    object.get(tag).or_else(|| frames.into_iter().find_map(|of| item(item(object, of)?, group)?.get(tag)))
}

/// The first item of a sequence.
fn item(object: &InMemDicomObject, sequence: Tag) -> Option<&InMemDicomObject> {
    object.get(sequence)?.items()?.first()
}

/// The first of an element's numbers; none where it is missing or empty.
fn number(object: &Object, group: Tag, tag: Tag, name: &str) -> Result<Option<f64>, ImageError> {
    let Some(element) = element(object, group, tag).filter(|element| !element.is_empty()) else { return Ok(None) };
    let number = element.to_finite_float64();
    number.map(Some).map_err(|_| ImageError::Damaged(format!("its {name} {tag} is no number; {CORRECT}")))
}

/// A look-up table (C.11.1.1, C.11.2.1.1).
struct Table {
    /// The value that the first entry is for; all below have that entry too, and all above the last the last.
    first: i64,
    entries: Vec<u16>,
    /// The largest entry that there can be.
    white: f64,
}

impl Table {
    /// None of an empty sequence or where there is none. `signed`: whether it is for values below zero, which a file that
    /// does not say how its values are written leaves open.
    fn first(name: &str, tag: Tag, sequence: Option<&InMemElement>, signed: bool) -> Result<Option<Self>, ImageError> {
        let Some(item) = sequence.and_then(|sequence| sequence.items()?.first()) else { return Ok(None) };
        let fault = |what: String| ImageError::Damaged(format!("its {name} {tag} has {what}; {CORRECT}"));
        let descriptor = item.get(tags::LUT_DESCRIPTOR).ok_or_else(|| fault("no LUT Descriptor (0028,3002)".into()))?;
        let numbers: Vec<i64> = descriptor.to_multi_int().unwrap_or_default();
        let &[count, first, bits] = numbers.as_slice() else {
            return Err(fault("a LUT Descriptor (0028,3002) without three numbers".into()));
        };
        let word = |number: i64| number.rem_euclid(1 << 16);
        let count = if word(count) == 0 { 1 << 16 } else { word(count) };
        let first = if signed || descriptor.vr() == VR::SS { i64::from(word(first) as u16 as i16) } else { first };
        let entries: Vec<u16> = item.get(tags::LUT_DATA).and_then(|data| data.to_multi_int().ok()).unwrap_or_default();
        if entries.len() as i64 != count {
            return Err(fault(format!(
                "{} entries in LUT Data (0028,3006), and {count} by its LUT Descriptor",
                entries.len()
            )));
        }
        if !(1..=16).contains(&bits) {
            return Err(fault(format!("{bits} bits an entry, and 8 to 16 are possible")));
        }
        // Some devices write 16 where they mean 12, which would leave 16 shades of grey.
        let used = i64::from(u16::BITS - entries.iter().max().copied().unwrap_or(0).leading_zeros());
        let bits = if used > 0 && used + 4 <= bits { used } else { bits };
        Ok(Some(Self { first, entries, white: ((1_u32 << bits) - 1).into() }))
    }

    fn at(&self, value: f64) -> f64 {
        let place = (value.round() as i64).saturating_sub(self.first).clamp(0, self.entries.len() as i64 - 1);
        self.entries[place as usize].into()
    }
}

/// A window (C.11.2.1.2, C.11.2.1.3).
struct Window {
    centre: f64,
    width: f64,
    function: VoiLutFunction,
}

impl Window {
    fn first(object: &Object) -> Result<Option<Self>, ImageError> {
        let group = tags::FRAME_VOILUT_SEQUENCE;
        let centre = number(object, group, tags::WINDOW_CENTER, "Window Center")?;
        let width = number(object, group, tags::WINDOW_WIDTH, "Window Width")?;
        let (centre, width) = match (centre, width) {
            (Some(centre), Some(width)) => (centre, width),
            (None, None) => return Ok(None),
            _ => {
                return Err(ImageError::Damaged(format!(
                    "it has only one of Window Center (0028,1050) and Window Width (0028,1051); {CORRECT}"
                )));
            }
        };
        if width <= 0.0 {
            return Err(ImageError::Damaged(format!(
                "its Window Width (0028,1051) is {width}, which has to be above 0; {CORRECT}"
            )));
        }
        let function = element(object, group, tags::VOILUT_FUNCTION).and_then(|function| function.to_str().ok());
        let function =
            function.as_deref().map_or("", |name| name.trim_matches(|c: char| c.is_whitespace() || c == '\0'));
        let function = match function {
            "" => VoiLutFunction::Linear,
            name => VoiLutFunction::try_from(name).map_err(|_| {
                ImageError::Unsupported(format!(
                    "its VOI LUT Function (0028,1056) is {}, and LINEAR, LINEAR_EXACT and SIGMOID are read; {CORRECT}",
                    name.escape_default()
                ))
            })?,
        };
        Ok(Some(Self { centre, width, function }))
    }

    /// From 0 to 1 within the window.
    fn at(&self, value: f64) -> f64 {
        let &Self { centre, width, function } = self;
        match function {
            VoiLutFunction::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - centre) / width).exp()),
            VoiLutFunction::Linear if width > 1.0 => (value - (centre - 0.5)) / (width - 1.0) + 0.5,
            VoiLutFunction::Linear if width == 1.0 => f64::from(u8::from(value > centre - 0.5)),
            VoiLutFunction::Linear | VoiLutFunction::LinearExact => (value - centre) / width + 0.5,
        }
    }
}
