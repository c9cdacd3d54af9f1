use super::*;
use crate::data::testing::fixture;

/// A file of the fixtures up to the end of its first group, which says how the rest is written.
fn head(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let length = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
    bytes[..144 + length].to_vec()
}

#[test]
fn the_header_is_read_where_it_is_wanted() {
    let bytes = std::fs::read(fixture("dicom_ct_big_endian.dcm")).unwrap();
    assert_eq!((patient(&bytes).as_deref(), dimensions(&bytes)), (Some("ID 17"), Some((27, 18))));
    // The patient stands before the pixels, so the beginning of a file is enough.
    assert_eq!(patient(&bytes[..1000]).as_deref(), Some("ID 17"));
    assert_eq!((patient(b"no image"), dimensions(&head("dicom_ct.dcm"))), (None, None));
    let kept = read(&bytes, &[tags::ROWS]).unwrap();
    assert_eq!(kept.iter().count(), 1, "nothing else of the header is kept");
}

#[test]
fn sequences_may_be_nested_without_end() {
    let sequence = *b"\x08\0\x18\x22SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF";
    let bytes = [head("dicom_ct.dcm"), sequence.repeat(200_000)].concat();
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("no Columns") || error.contains("DICOM"), "{error}");
}

#[test]
fn a_value_is_no_longer_than_its_file() {
    // Two gigabytes of window centres.
    let bytes = [head("dicom_ct.dcm"), b"\x28\0\x50\x10OB\0\0\0\0\0\x80".to_vec()].concat();
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("longer than the file"), "{error}");
    let whole = std::fs::read(fixture("dicom_ct.dcm")).unwrap();
    for length in [whole.len() - 1, whole.len() - 500] {
        assert!(decode(&whole[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn a_jpeg_that_claims_another_size_is_refused() {
    let mut bytes = std::fs::read(fixture("dicom_jpeg.dcm")).unwrap();
    let frame = bytes.windows(4).position(|four| four == [0xFF, 0xC0, 0, 11]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xFF; 4]);
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("65535 x 65535") && error.contains("27 x 18"), "{error}");
}

#[test]
fn what_is_not_read_is_named_with_a_way_out() {
    let changed = |name: &str, from: &[u8], to: &[u8]| {
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes.splice(at..at + from.len(), to.iter().copied());
        decode(&bytes).unwrap_err().to_string()
    };
    for (ending, name) in
        [(b"80", "JPEG-LS Lossless"), (b"81", "JPEG-LS Lossy"), (b"90", "JPEG 2000"), (b"91", "JPEG 2000")]
    {
        let id = [b"1.2.840.10008.1.2.4.".as_slice(), ending].concat();
        let error = changed("dicom_jpeg.dcm", b"1.2.840.10008.1.2.4.50", &id);
        let id = String::from_utf8(id).unwrap();
        assert!(error.contains(name) && error.contains(&id) && error.contains("gdcmconv --raw"), "{error}");
    }
    let error = changed("dicom_ct.dcm", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.9");
    assert!(error.contains("1.2.840.10008.1.2.9 is not read") && error.contains("gdcmconv --raw"), "{error}");
    let error = changed("dicom_ct.dcm", b"CS\x0c\0MONOCHROME2 ", b"CS\x0e\0PALETTE COLOR ");
    assert!(error.contains("palette") && error.contains("save it as RGB"), "{error}");
}
