//! From the bytes of a file to an 8-bit RGB image.
//!
//! The content decides the format, never the file's extension. Conversions, the same as Pillow's `convert("RGB")`
//! unless said otherwise:
//!
//! | input | becomes |
//! |---|---|
//! | grey | the value in all three channels |
//! | palette | its colours |
//! | alpha | dropped, not blended: the colour under a transparent pixel is kept |
//! | 16 bit | `round(value * 255 / (2^bit_depth - 1))`, clipped at 255 (Pillow clips at 255 without scaling) |
//! | CMYK, YCCK in JPEG | `(255 - C) * (255 - K) / 255`, inverted storage as Adobe writes it |
//! | EXIF or TIFF orientation | applied (Pillow: `ImageOps.exif_transpose`) |
//! | animation, several pages | the first frame |
//! | DICOM | its first frame through its first window: see `dicom.rs` |
//! | floating point | refused: its range is not known |
//!
//! Colour profiles are not applied.

pub use super::decode_memory::Decoded;
use super::decode_memory::Room;
use super::dicom;
use super::image_error::MAX_FILE_BYTES;
pub use super::image_error::{ImageError, MAX_PIXELS, MAX_SIDE, MAX_TILES};
pub use super::storage::Storage;
use super::storage::{peak, storage};
use crate::pixels::jpeg;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, metadata::Orientation};
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, JpegError, PixelFormat};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Most memory that a decoder may ask for, in bytes: 16-bit RGBA at [`MAX_PIXELS`], and room to work.
const MAX_DECODER_BYTES: u64 = 1_200_000_000;

/// The same for PNG, whose decoder asks for a few rows and for what stands beside the pixels: a colour profile, which is
/// not applied, may unpack to any size.
const MAX_PNG_BYTES: u64 = 64_000_000;

/// Each scan of a progressive JPEG goes over the whole image: encoders write about ten, a bomb thousands.
const MAX_SCANS: usize = 500;

/// Extensions of the files that count as images in a folder, in lower case.
pub const EXTENSIONS: [&str; 11] = ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "tif", "tiff", "webp", "dcm", "dicom"];
/// Extensions of image files that are not read, in lower case: such files are counted and named, never passed over in
/// silence.
pub const UNREAD_EXTENSIONS: [&str; 34] = [
    "heic", "heif", "hif", "avif", "gif", "apng", "jp2", "j2k", "jpx", "jpf", "jxl", "jxr", "svg", "psd", "raw", "cr2",
    "cr3", "nef", "arw", "dng", "orf", "rw2", "raf", "exr", "hdr", "ppm", "pgm", "pbm", "pnm", "tga", "ico", "pcx",
    "nii", "svs",
];

/// What the content of a file does not say by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Significant bits of 16-bit images, 1 to 16: `2^bit_depth - 1` becomes white.
    pub bit_depth: u8,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { bit_depth: 16 }
    }
}

/// Width and height as the head of a file says; none when it cannot be read.
pub fn dimensions(path: &Path) -> Option<(u32, u32)> {
    let image = || ImageReader::open(path).ok()?.with_guessed_format().ok()?.into_dimensions().ok();
    image().or_else(|| dicom::dimensions(&read(path).ok()?))
}

/// Reads and decodes one file.
///
/// # Errors
/// Says why the file is not a usable image; the caller knows its path.
pub fn decode_file(path: &Path, options: DecodeOptions) -> Result<RgbImage, ImageError> {
    decode(&read(path)?, options)
}

/// The bytes of a regular file of sane size.
///
/// # Errors
/// When the system refuses, or the file is a pipe, a device, empty or larger than any image.
pub fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(ImageError::NotAFile);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(ImageError::FileTooLarge(metadata.len()));
    }
    Ok(std::fs::read(path)?)
}

/// Decodes an image by its content, upright.
///
/// # Errors
/// Says why the bytes are not a usable image. A decoder that panics on hostile bytes counts as a damaged file.
pub fn decode(bytes: &[u8], options: DecodeOptions) -> Result<RgbImage, ImageError> {
    decode_any(bytes, options).map(|decoded| decoded.image)
}

/// Like [`decode`], and says how the pixels were stored. It looks more closely, for files that are seen for the first
/// time: a JPEG must hold all of its image, where a decoder would fill what is missing with grey.
///
/// # Errors
/// As [`decode`].
pub fn decode_described(bytes: &[u8], options: DecodeOptions) -> Result<Decoded, ImageError> {
    let decoded = decode_any(bytes, options)?;
    if decoded.storage.format == "JPEG" {
        jpeg::check(bytes).map_err(|reason| ImageError::Damaged(reason.into()))?;
    }
    Ok(decoded)
}

/// Decodes like [`decode`], and says how the pixels were stored.
pub(super) fn decode_any(bytes: &[u8], options: DecodeOptions) -> Result<Decoded, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let decoded =
        catch_unwind(AssertUnwindSafe(|| match guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => decode_jpeg(bytes),
            Ok(format @ (ImageFormat::Png | ImageFormat::Bmp | ImageFormat::Tiff | ImageFormat::WebP)) => {
                decode_other(bytes, format, options)
            }
            Ok(format) => Err(ImageError::UnsupportedFormat(format!("{format:?}").to_uppercase())),
            Err(_) if dicom::is_dicom(bytes) => dicom::decode(bytes),
            Err(_) => Err(other_format(bytes)
                .map_or(ImageError::NotAnImage, |name| ImageError::UnsupportedFormat(name.to_owned()))),
        }));
    decoded.unwrap_or_else(|_| Err(ImageError::Damaged("its decoder failed unexpectedly".into())))
}

/// As `image` guesses, and `BigTIFF`, which the TIFF decoder reads too.
fn guess_format(bytes: &[u8]) -> image::ImageResult<ImageFormat> {
    match bytes {
        [b'I', b'I', 0x2B, 0, ..] | [b'M', b'M', 0, 0x2B, ..] => Ok(ImageFormat::Tiff),
        _ => image::guess_format(bytes),
    }
}

/// The name of a format that is not read, so that a file with a misleading extension is called what it is.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    // Cameras and telephones write ISO media files, whose first box names their kind.
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(match bytes.get(8..12)? {
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1" => "HEIC (HEIF)",
            b"avif" | b"avis" => "AVIF",
            b"crx " => "Canon raw (CR3)",
            _ => "video (MP4, MOV or the like)",
        });
    }
    let names: [(&[u8], &str); 9] = [
        (b"\0\0\0\x0CjP  ", "JPEG 2000"),
        (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
        (b"\0\0\0\x0CJXL ", "JPEG XL"),
        (b"\xFF\x0A", "JPEG XL"),
        (b"8BPS", "Photoshop (PSD)"),
        (b"%PDF", "PDF"),
        (b"<svg", "SVG"),
        (b"<?xml", "XML (SVG?)"),
        (b"version https://git-lfs", "git-lfs pointer (its content was not fetched: `git lfs pull`)"),
    ];
    names.into_iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, name)| name)
}

/// The pixels of libjpeg-turbo, which Pillow and torchvision decode with, bit for bit; strict where it only warns: a
/// damaged scan is an error, not a grey area.
fn decode_jpeg(bytes: &[u8]) -> Result<Decoded, ImageError> {
    let damaged = |error: JpegError| ImageError::Damaged(error.to_string());
    // Looked for first, because a cut file fails in many ways and this is the reason a person can use.
    if !jpeg::reaches_end(bytes) {
        return Err(ImageError::Truncated("it has no end-of-image marker"));
    }
    let limits = DecodeLimits { max_memory: Some(MAX_DECODER_BYTES), max_scans: MAX_SCANS, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(damaged)?;
    let (width, height) = (u32::from(decoder.header().width), u32::from(decoder.header().height));
    let room = Room::for_image(width.into(), height.into())?;
    if decoder.header().precision > 8 {
        return Err(ImageError::Unsupported("a JPEG of more than 8 bits is not read; save it as a 16-bit PNG".into()));
    }
    let (channels, format) = match decoder.jpeg_color_space() {
        ColorSpace::Grayscale => ("grey", PixelFormat::Rgb),
        ColorSpace::Cmyk | ColorSpace::Ycck => ("CMYK", PixelFormat::Cmyk),
        _ => ("colour", PixelFormat::Rgb),
    };
    decoder.set_output_format(format);
    decoder.set_stop_on_warning(true);
    let decoded = decoder.decode_image().map_err(damaged)?;
    let pixels = if format == PixelFormat::Cmyk { inks_to_rgb(&decoded.data) } else { decoded.data };
    let orientation = decoded.exif_data.and_then(|exif| Orientation::from_exif_chunk(&exif));
    let image = RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| ImageError::Damaged("its size changes while it is decoded".into()))?;
    let storage = Storage { format: "JPEG", channels, bits: 8, peak: None };
    Ok(Decoded { image: upright(DynamicImage::ImageRgb8(image), orientation).into_rgb8(), storage, room })
}

/// Four values for each pixel, the inks stored inverted as Adobe does, to three.
fn inks_to_rgb(inks: &[u8]) -> Vec<u8> {
    let colour = |ink: u8, black: u8| ((u16::from(ink) * u16::from(black) + 127) / 255) as u8;
    inks.as_chunks::<4>().0.iter().flat_map(|&[c, m, y, k]| [c, m, y].map(|ink| colour(ink, k))).collect()
}

fn decode_other(bytes: &[u8], format: ImageFormat, options: DecodeOptions) -> Result<Decoded, ImageError> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(if format == ImageFormat::Png { MAX_PNG_BYTES } else { MAX_DECODER_BYTES });
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let failed = |error: image::ImageError| match image_error(error) {
        ImageError::Unsupported(reason) if format == ImageFormat::Tiff => {
            ImageError::Unsupported(tiff_colours(bytes).map_or(reason, str::to_owned))
        }
        other => other,
    };
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let room = Room::for_image(width.into(), height.into())?;
    // An orientation that cannot be read is no reason to refuse the pixels.
    let orientation = decoder.orientation().ok();
    let storage = storage(format, decoder.original_color_type());
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    let storage = Storage { peak: peak(&image), ..storage };
    Ok(Decoded { image: to_rgb8(upright(image, orientation), options)?, storage, room })
}

/// Why the colours of a TIFF file are not read, by the tag that says what they are.
fn tiff_colours(bytes: &[u8]) -> Option<&'static str> {
    const PHOTOMETRIC: u16 = 262;
    let big = bytes.starts_with(b"MM");
    let number = |at: usize| {
        let pair = [*bytes.get(at)?, *bytes.get(at + 1)?];
        Some(if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    let first = *bytes.get(4..8)?.first_chunk::<4>()?;
    let first = (if big { u32::from_be_bytes(first) } else { u32::from_le_bytes(first) }) as usize;
    let mut entries = (0..usize::from(number(first)?)).map(|entry| first + 2 + 12 * entry);
    match number(entries.find(|&at| number(at) == Some(PHOTOMETRIC))? + 8)? {
        3 => Some("its pixels are indices into a palette, which is not read in TIFF; save it as RGB, or as PNG"),
        8..=10 => Some("its colours are CIE L*a*b*; save it as RGB, or as PNG"),
        _ => None,
    }
}

fn upright(mut image: DynamicImage, orientation: Option<Orientation>) -> DynamicImage {
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    image
}

fn to_rgb8(image: DynamicImage, options: DecodeOptions) -> Result<RgbImage, ImageError> {
    match image {
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => Ok(sixteen_to_eight(&image, options.bit_depth)),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            Err(ImageError::Unsupported("floating-point pixels have no known range; save it with 8 or 16 bits".into()))
        }
        other => Ok(other.into_rgb8()),
    }
}

fn sixteen_to_eight(image: &DynamicImage, bit_depth: u8) -> RgbImage {
    let white = (1u32 << bit_depth.clamp(1, 16)) - 1;
    // Rounded to nearest; 65535 * 255 fits 32 bits.
    let scale = |value: u16| ((u32::from(value) * 255 + white / 2) / white).min(255) as u8;
    let wide = image.to_rgb16();
    let narrow = wide.as_raw().iter().map(|&value| scale(value)).collect();
    RgbImage::from_raw(wide.width(), wide.height(), narrow).unwrap_or_default()
}

fn image_error(error: image::ImageError) -> ImageError {
    use image::ImageError as E;
    match error {
        E::Unsupported(reason) => ImageError::Unsupported(reason.to_string()),
        E::Limits(reason) => ImageError::Damaged(format!("it asks for too much memory ({reason})")),
        E::IoError(reason) if reason.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated("its content ends too early")
        }
        other => ImageError::Damaged(other.to_string()),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
