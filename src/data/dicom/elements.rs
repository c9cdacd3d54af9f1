//! The elements of a file, one by one.

use super::{Object, PLAIN, PREAMBLE, damaged, is_dicom};
use crate::data::image_error::ImageError;
use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileDicomObject, FileMetaTable, InMemDicomObject};
use dicom_parser::DynStatefulDecoder;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry};
use std::io::Cursor;

/// Wanted sequences within each other: frames have their window in a sequence of a sequence, with its table in a third.
const DEEPEST: usize = 3;

/// Those of the wanted elements that are there, which come in the order of their tags; of a wanted sequence the first item,
/// with those of its elements that are wanted. All else is passed over one by one: however deep sequences are nested, and
/// whatever length they claim, memory stays within that of the file.
pub(super) fn read(bytes: &[u8], wanted: &[Tag]) -> Result<Object, ImageError> {
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
    let mut kept = Kept { object: FileDicomObject::new_empty_with_meta(meta), open: Vec::new(), passed: 0 };
    let last = wanted.iter().max().copied().unwrap_or(tags::PIXEL_DATA);
    while let Some(token) = elements.advance() {
        let outermost = kept.open.is_empty() && kept.passed == 0;
        match token.map_err(damaged)? {
            LazyDataToken::ElementHeader(header) => {
                if outermost && header.tag > last {
                    break;
                }
                // A value is read into memory of the length that it claims.
                if header.len.get().is_some_and(|length| length as usize > bytes.len()) {
                    return Err(ImageError::Truncated("a value is longer than the file"));
                }
            }
            LazyDataToken::SequenceStart { tag, .. } => {
                if outermost && tag > last {
                    break;
                }
                kept.start_sequence(tag, wanted.contains(&tag));
            }
            LazyDataToken::PixelSequenceStart if outermost && wanted.contains(&tags::PIXEL_DATA) => {
                let fragments = fragments(&mut elements, bytes.len())?;
                kept.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
                break;
            }
            LazyDataToken::PixelSequenceStart => kept.passed += 1,
            LazyDataToken::ItemStart { .. } => kept.start_item(),
            LazyDataToken::ItemEnd => kept.passed = kept.passed.saturating_sub(1),
            LazyDataToken::SequenceEnd => kept.end_sequence(),
            LazyDataToken::LazyValue { header, decoder } => {
                let token = LazyDataToken::LazyValue { header, decoder };
                if kept.passed == 0 && wanted.contains(&header.tag) {
                    kept.put(DataElement::new(header.tag, header.vr, token.into_value().map_err(damaged)?));
                } else {
                    token.skip().map_err(damaged)?;
                }
            }
            token => token.skip().map_err(damaged)?,
        }
    }
    Ok(kept.object)
}

/// What has been read of a file.
struct Kept {
    object: Object,
    /// Wanted sequences that have begun, each within the one before, and the first item of each.
    open: Vec<(Tag, Option<InMemDicomObject>)>,
    /// Sequences and items that have begun and are passed over.
    passed: usize,
}

impl Kept {
    fn put(&mut self, element: DataElement<InMemDicomObject>) {
        match self.open.last_mut() {
            None => drop(self.object.put(element)),
            Some((_, item)) => drop(item.as_mut().and_then(|item| item.put(element))),
        }
    }

    fn start_sequence(&mut self, tag: Tag, wanted: bool) {
        if wanted && self.passed == 0 && self.open.len() < DEEPEST {
            self.open.push((tag, None));
        } else {
            self.passed += 1;
        }
    }

    fn start_item(&mut self) {
        match self.open.last_mut() {
            Some((_, item @ None)) if self.passed == 0 => *item = Some(InMemDicomObject::new_empty()),
            _ => self.passed += 1,
        }
    }

    fn end_sequence(&mut self) {
        if self.passed > 0 {
            self.passed -= 1;
        } else if let Some((tag, item)) = self.open.pop() {
            let items: Vec<_> = item.into_iter().collect();
            self.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
        }
    }
}

/// Refuses values of the first group, which is always written explicitly and in little endian, that claim more than there
/// is: a value is read into memory of the length that it claims. Whatever lies within the length of the group is read as
/// one of its elements.
fn check_meta(bytes: &[u8]) -> Result<(), ImageError> {
    /// Kinds of values with a length of two bytes; all others, known or not, have four.
    const SHORT: [&[u8; 2]; 21] = [
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
        b"ST", b"TM", b"UI", b"UL", b"US",
    ];
    /// Where the first element, which comes first, has its value: the length of all others.
    const GROUP_LENGTH: usize = 8;
    let number = |at: usize, n: usize| {
        let digits = bytes.get(at..at + n)?;
        Some(digits.iter().rev().fold(0, |number, &digit| number << 8 | usize::from(digit)))
    };
    let end = number(GROUP_LENGTH, 4).map_or(0, |length| GROUP_LENGTH + 4 + length);
    let mut at = 0;
    while at < end || number(at, 2) == Some(2) {
        let short = bytes.get(at + 4..at + 6).is_some_and(|vr| SHORT.iter().any(|short| short.as_slice() == vr));
        let (length, head) = match number(at, 2) {
            // Items have no kind.
            Some(0xFFFE) => (number(at + 4, 4), 8),
            _ if short => (number(at + 6, 2), 8),
            _ => (number(at + 8, 4), 12),
        };
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
