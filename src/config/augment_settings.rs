//! The resolved settings of `[augment]`.

use serde::{Deserialize, Serialize};

/// `[augment]`: what is on, with its probabilities and strengths. The preset is already folded in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AugmentSettings {
    /// The preset the values started from.
    pub preset: AugmentPreset,
    /// Probability of a left-right flip.
    pub hflip: f64,
    /// Probability of an up-down flip.
    pub vflip: f64,
    /// Probability of a rotation by a random multiple of 90 degrees.
    pub rotate90: f64,
    /// Random resized crop; none = the whole image.
    pub crop: Option<CropSettings>,
    /// Colour jitter; none = off.
    pub color: Option<ColorSettings>,
    /// Spots and drops; none = off.
    pub stains: Option<StainsSettings>,
    /// Scratches; none = off.
    pub scratches: Option<ScratchesSettings>,
    /// Something in front of the object; none = off.
    pub occlusion: Option<OcclusionSettings>,
    /// Uneven light; none = off.
    pub illumination: Option<IlluminationSettings>,
    /// Blur of the optics or of motion; none = off.
    pub blur: Option<BlurSettings>,
    /// Bands; none = off.
    pub stripes: Option<StripesSettings>,
    /// Noise of the sensor; none = off.
    pub noise: Option<NoiseSettings>,
    /// Flaws of lossy compression; none = off.
    pub jpeg: Option<JpegSettings>,
    /// Random erasing; none = off.
    pub erasing: Option<ErasingSettings>,
}

impl AugmentSettings {
    /// Every operation off.
    pub const NONE: Self = Self {
        preset: AugmentPreset::None,
        hflip: 0.0,
        vflip: 0.0,
        rotate90: 0.0,
        crop: None,
        color: None,
        stains: None,
        scratches: None,
        occlusion: None,
        illumination: None,
        blur: None,
        stripes: None,
        noise: None,
        jpeg: None,
        erasing: None,
    };

    /// Each operation that is on, alone and certain to act, by its key; flips and rotations, which need no looking at,
    /// are left out.
    pub fn alone(&self) -> Vec<(&'static str, Self)> {
        let (p, none) = (1.0, Self::NONE);
        let singles = [
            ("crop", self.crop.map(|on| Self { crop: Some(on), ..none })),
            ("stains", self.stains.map(|on| Self { stains: Some(StainsSettings { p, ..on }), ..none })),
            ("scratches", self.scratches.map(|on| Self { scratches: Some(ScratchesSettings { p, ..on }), ..none })),
            ("occlusion", self.occlusion.map(|on| Self { occlusion: Some(OcclusionSettings { p, ..on }), ..none })),
            (
                "illumination",
                self.illumination.map(|on| Self { illumination: Some(IlluminationSettings { p, ..on }), ..none }),
            ),
            ("color", self.color.map(|on| Self { color: Some(ColorSettings { p, ..on }), ..none })),
            ("blur", self.blur.map(|on| Self { blur: Some(BlurSettings { p, ..on }), ..none })),
            ("stripes", self.stripes.map(|on| Self { stripes: Some(StripesSettings { p, ..on }), ..none })),
            ("noise", self.noise.map(|on| Self { noise: Some(NoiseSettings { p, ..on }), ..none })),
            ("jpeg", self.jpeg.map(|on| Self { jpeg: Some(JpegSettings { p, ..on }), ..none })),
            ("erasing", self.erasing.map(|on| Self { erasing: Some(ErasingSettings { p, ..on }), ..none })),
        ];
        singles.into_iter().filter_map(|(name, settings)| Some((name, settings?))).collect()
    }
}

/// `augment.preset`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AugmentPreset {
    /// Nothing.
    None,
    /// Left-right flips, a mild crop and mild jitter.
    Light,
    /// For pictures of a fixed camera: flips, uneven light, stains, stripes, noise, blur and erasing; no crop.
    Industrial,
}

/// `augment.crop`: random resized crop (Szegedy et al. 2014; torchvision's `RandomResizedCrop`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CropSettings {
    /// Smallest and largest area as fractions of the image.
    pub scale: [f64; 2],
    /// Smallest and largest width / height.
    pub ratio: [f64; 2],
}

/// `augment.color`: factors drawn from max(0, 1 - x) to 1 + x (torchvision's `ColorJitter`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ColorSettings {
    /// Probability of jittering an image.
    pub p: f64,
    /// Strength of the brightness change.
    pub brightness: f64,
    /// Strength of the contrast change.
    pub contrast: f64,
    /// Strength of the saturation change.
    pub saturation: f64,
    /// Strength of the hue change, at most 0.5.
    pub hue: f64,
}

/// `augment.stains`: soft irregular spots and drops with a rim.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StainsSettings {
    /// Probability of staining an image.
    pub p: f64,
    /// Largest share of the way to black or white.
    pub strength: f64,
    /// Fewest and most stains.
    pub count: [u32; 2],
    /// Smallest and largest diameter as fractions of the shorter side.
    pub size: [f64; 2],
}

/// `augment.scratches`: thin, slightly bent lines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScratchesSettings {
    /// Probability of scratching an image.
    pub p: f64,
    /// Largest share of the way to black or white.
    pub strength: f64,
    /// Fewest and most scratches.
    pub count: [u32; 2],
    /// Shortest and longest as fractions of the shorter side.
    pub length: [f64; 2],
}

/// `augment.occlusion`: a solid or mottled rectangle in front of the object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OcclusionSettings {
    /// Probability of covering a part of an image.
    pub p: f64,
    /// Smallest and largest area as fractions of the image.
    pub area: [f64; 2],
    /// Smallest and largest height / width.
    pub ratio: [f64; 2],
}

/// `augment.illumination`: light that falls off across the image, and a gamma.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IlluminationSettings {
    /// Probability of changing the light of an image.
    pub p: f64,
    /// Largest relative change of the brightness at the edge; the exponent is between 1 / (1 + x) and 1 + x.
    pub strength: f64,
}

/// `augment.blur`: Gaussian, or along a line as of motion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BlurSettings {
    /// Probability of blurring an image.
    pub p: f64,
    /// Largest standard deviation as a fraction of the shorter side.
    pub strength: f64,
}

/// `augment.stripes`: one band or many of equal distance, at any angle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StripesSettings {
    /// Probability of striping an image.
    pub p: f64,
    /// Largest share of the way to black or white.
    pub strength: f64,
    /// Narrowest and widest band as fractions of the shorter side.
    pub width: [f64; 2],
}

/// `augment.noise`: Gaussian noise, partly constant and partly growing with the brightness as shot noise does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NoiseSettings {
    /// Probability of adding noise to an image.
    pub p: f64,
    /// Largest standard deviation at white, where white is 1.
    pub strength: f64,
}

/// `augment.jpeg`: compressed and decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct JpegSettings {
    /// Probability of compressing an image.
    pub p: f64,
    /// Lowest and highest quality, of 100.
    pub quality: [u8; 2],
}

/// `augment.erasing`: random erasing (Zhong et al. 2017).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ErasingSettings {
    /// Probability of erasing a rectangle.
    pub p: f64,
    /// Smallest and largest area as fractions of the image.
    pub area: [f64; 2],
    /// Smallest and largest height / width.
    pub ratio: [f64; 2],
}
