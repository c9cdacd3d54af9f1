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
    // One that is passed over, and one that is wanted.
    for tag in [*b"\x08\0\x18\x22", *b"\x28\0\x10\x30"] {
        let sequence = [&tag[..], b"SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF"].concat();
        let bytes = [head("dicom_ct.dcm"), sequence.repeat(200_000)].concat();
        let error = decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("no Columns") || error.contains("DICOM"), "{error}");
    }
}

#[test]
fn a_value_is_no_longer_than_its_file() {
    // Two gigabytes of window centres.
    let bytes = [head("dicom_ct.dcm"), b"\x28\0\x50\x10OB\0\0\0\0\0\x80".to_vec()].concat();
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("longer than the file"), "{error}");
    // A gigabyte in the first group, behind an element of another one.
    let group = b"DICM\x02\0\0\0UL\x04\0\xFF\0\0\0\0\0\x01\0OB\0\0\0\0\0\0\x02\0\x12\0UN\0\0\x42\x42\x42\x42";
    let error = decode(&[&[0; 128], &group[..]].concat()).unwrap_err().to_string();
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
    let refused = |name: &str, from: &[u8], to: &[u8]| changed(name, from, to).unwrap_err().to_string();
    for (ending, name) in
        [(b"80", "JPEG-LS Lossless"), (b"81", "JPEG-LS Lossy"), (b"90", "JPEG 2000"), (b"91", "JPEG 2000")]
    {
        let id = [b"1.2.840.10008.1.2.4.".as_slice(), ending].concat();
        let error = refused("dicom_jpeg.dcm", b"1.2.840.10008.1.2.4.50", &id);
        let id = String::from_utf8(id).unwrap();
        assert!(error.contains(name) && error.contains(&id) && error.contains("gdcmconv --raw"), "{error}");
    }
    let error = refused("dicom_ct.dcm", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.9");
    assert!(error.contains("1.2.840.10008.1.2.9 is not read") && error.contains("gdcmconv --raw"), "{error}");
    let error = refused("dicom_ct.dcm", b"CS\x0c\0MONOCHROME2 ", b"CS\x0e\0PALETTE COLOR ");
    assert!(error.contains("palette") && error.contains("save it as RGB"), "{error}");
}

/// A file of the fixtures with other bytes in one place.
fn changed(name: &str, from: &[u8], to: &[u8]) -> Result<Decoded, ImageError> {
    let mut bytes = std::fs::read(fixture(name)).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes.splice(at..at + from.len(), to.iter().copied());
    decode(&bytes)
}

#[test]
fn a_header_that_cannot_be_followed_is_refused_by_the_tag() {
    let faults: [(&str, &[u8], &[u8], &str); 7] = [
        ("dicom_sigmoid.dcm", b"SIGMOID ", b"SPECIAL ", "VOI LUT Function (0028,1056) is SPECIAL"),
        ("dicom_narrow.dcm", b"\x51\x10DS\x04\x001.0 ", b"\x51\x10DS\x04\x000.0 ", "Window Width (0028,1051) is 0"),
        (
            "dicom_narrow.dcm", b"\x51\x10DS\x04\x001.0 ", b"\x51\x10DS\x04\x00x.0 ",
            "Window Width (0028,1051) is no number",
        ),
        ("dicom_narrow.dcm", b"\x51\x10DS\x04\x001.0 ", b"\x51\x10DS\0\0", "only one of Window Center (0028,1050)"),
        // One of 1,200 entries; a descriptor by another name; 17 bits.
        (
            "dicom_modality_lut.dcm",
            b"US\x06\0\xB0\x04",
            b"US\x06\0\xB1\x04",
            "(0028,3000) has 1200 entries in LUT Data",
        ),
        (
            "dicom_voi_lut.dcm",
            b"\x28\0\x02\x30SS",
            b"\x28\0\x02\x31SS",
            "(0028,3010) has no LUT Descriptor (0028,3002)",
        ),
        ("dicom_modality_lut.dcm", b"\xB0\x04\x64\0\x10", b"\xB0\x04\x64\0\x11", "(0028,3000) has 17 bits an entry"),
    ];
    for (name, from, to, expected) in faults {
        let error = changed(name, from, to).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("save it as PNG"), "{error}");
    }
}

#[test]
fn a_table_of_fewer_bits_than_it_says_keeps_its_shades() {
    let as_it_says = decode(&std::fs::read(fixture("dicom_voi_lut.dcm")).unwrap()).unwrap().image;
    // Twelve bits written as sixteen.
    let too_many = changed("dicom_voi_lut.dcm", b"SS\x06\0\xB0\x04\x0C\xFE\x0C", b"SS\x06\0\xB0\x04\x0C\xFE\x10");
    assert_eq!(too_many.unwrap().image, as_it_says);
}
