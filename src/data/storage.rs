//! How files store their pixels.

use image::{DynamicImage, ExtendedColorType, ImageFormat};

/// How a file stores its pixels, before they become 8-bit RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Storage {
    /// The file's format.
    pub format: &'static str,
    /// Its channels: grey, colour, CMYK, with or without alpha.
    pub channels: &'static str,
    /// Bits of a channel.
    pub bits: u8,
    /// The largest value of an image of 16 bits.
    pub peak: Option<u16>,
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {} bit", self.format, self.channels, self.bits)
    }
}

/// The storage of a file of that format and colours.
pub(super) fn storage(format: ImageFormat, color: ExtendedColorType) -> Storage {
    let channels = match (color, color.channel_count()) {
        (ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16, _) => "CMYK",
        (_, 1) => "grey",
        (_, 2) => "grey and alpha",
        (_, 4) => "colour and alpha",
        _ => "colour",
    };
    let format = match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::WebP => "WebP",
        _ => "image",
    };
    let bits = color.bits_per_pixel() / u16::from(color.channel_count().max(1));
    Storage { format, channels, bits: bits as u8, peak: None }
}

/// The largest value of an image of 16 bits; alpha does not count.
pub(super) fn peak(image: &DynamicImage) -> Option<u16> {
    match image {
        DynamicImage::ImageLuma16(pixels) => pixels.as_raw().iter().copied().max(),
        DynamicImage::ImageRgb16(pixels) => pixels.as_raw().iter().copied().max(),
        DynamicImage::ImageLumaA16(pixels) => pixels.pixels().map(|pixel| pixel.0[0]).max(),
        DynamicImage::ImageRgba16(pixels) => pixels.pixels().flat_map(|pixel| pixel.0.into_iter().take(3)).max(),
        _ => None,
    }
}
