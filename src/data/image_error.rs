//! Which files are images that are read: their limits, and why another is none.

/// Largest image that is decoded, in pixels: 100 megapixels are 300 MB of RGB.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Longest side that is decoded, in pixels; also what JPEG can express.
pub const MAX_SIDE: u32 = 65_535;
/// Most tiles of one image: one of 100 megapixels has so many of 90 pixels that overlap by an eighth.
pub const MAX_TILES: usize = 16_384;
/// Largest file that is read, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 30;

/// Why a file is not a usable image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The system refused to read it.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// A folder, pipe or device.
    #[error("is not a regular file")]
    NotAFile,
    /// More bytes than an image of [`MAX_PIXELS`] needs.
    #[error("has {0} bytes; at most {MAX_FILE_BYTES} are read")]
    FileTooLarge(u64),
    /// No bytes at all.
    #[error("is empty (0 bytes)")]
    Empty,
    /// Content that no image format begins with.
    #[error("is not an image (its content is no JPEG, PNG, BMP, TIFF, WebP or DICOM)")]
    NotAnImage,
    /// A format that is recognised but not decoded.
    #[error("is a {0} file; JPEG, PNG, BMP, TIFF, WebP and DICOM are supported")]
    UnsupportedFormat(String),
    /// The header announces more pixels than [`MAX_PIXELS`] or a side above [`MAX_SIDE`].
    #[error("claims {width} x {height} pixels; at most {MAX_PIXELS} pixels and {MAX_SIDE} a side are decoded")]
    TooManyPixels {
        /// Width in the header.
        width: u64,
        /// Height in the header.
        height: u64,
    },
    /// It would be cut into more tiles than [`MAX_TILES`].
    #[error("has {count} tiles of {side} pixels; at most {MAX_TILES} are cut: choose a larger preprocess.tiles.side")]
    TooManyTiles {
        /// Its tiles.
        count: usize,
        /// Their side.
        side: u32,
    },
    /// The file ends too early.
    #[error("is truncated: {0}")]
    Truncated(&'static str),
    /// The content contradicts its format.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// A variant of its format that is not decoded.
    #[error("cannot be converted to 8-bit RGB: {0}")]
    Unsupported(String),
}

pub(super) fn check_dimensions(width: u64, height: u64) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::Damaged(format!("it has {width} x {height} pixels")));
    }
    if width.max(height) > u64::from(MAX_SIDE) || width.saturating_mul(height) > MAX_PIXELS {
        return Err(ImageError::TooManyPixels { width, height });
    }
    Ok(())
}
