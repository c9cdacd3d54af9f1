//! `[augment]` as it is written. An operation is `true`, `false`, one number or a table; the number is its probability,
//! but for `color`, where it is the strength.

use super::augment_settings::AugmentPreset;
use super::raw::{Share, Shorthand, Switch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[augment]`: the preset, then single overrides of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAugment {
    /// The values to start from.
    #[schemars(extend("default" = "none"))]
    pub preset: Option<AugmentPreset>,
    /// Left-right flip: its probability; true = 0.5.
    pub hflip: Option<Switch<Share>>,
    /// Up-down flip: its probability; true = 0.5.
    pub vflip: Option<Switch<Share>>,
    /// Rotation by a random multiple of 90 degrees: its probability; true = 0.5.
    pub rotate90: Option<Switch<Share>>,
    /// Random resized crop: true, false or a table.
    pub crop: Option<Switch<RawCrop>>,
    /// Colour jitter: true, false, one strength for brightness, contrast and saturation, or a table.
    pub color: Option<Switch<Shorthand<RawColor>>>,
    /// Soft spots and drops: true, false, their probability, or a table.
    pub stains: Option<Switch<Shorthand<RawStains>>>,
    /// Thin bent lines: true, false, their probability, or a table.
    pub scratches: Option<Switch<Shorthand<RawScratches>>>,
    /// A solid or mottled rectangle in front of the object: true, false, its probability, or a table.
    pub occlusion: Option<Switch<Shorthand<RawOcclusion>>>,
    /// Light that falls off across the image, and a gamma: true, false, its probability, or a table.
    pub illumination: Option<Switch<Shorthand<RawIllumination>>>,
    /// Gaussian or motion blur: true, false, its probability, or a table.
    pub blur: Option<Switch<Shorthand<RawBlur>>>,
    /// One band or many of equal distance: true, false, their probability, or a table.
    pub stripes: Option<Switch<Shorthand<RawStripes>>>,
    /// Noise of a sensor: true, false, its probability, or a table.
    pub noise: Option<Switch<Shorthand<RawNoise>>>,
    /// JPEG compression: true, false, its probability, or a table.
    pub jpeg: Option<Switch<Shorthand<RawJpeg>>>,
    /// Random erasing: true, false, its probability, or a table.
    pub erasing: Option<Switch<Shorthand<RawErasing>>>,
}

/// `augment.crop`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCrop {
    /// Smallest and largest area as fractions of the image.
    #[schemars(inner(range(min = 1e-4, max = 1.0)), extend("default" = [0.7, 1.0]))]
    pub scale: Option<[f64; 2]>,
    /// Smallest and largest width / height.
    #[schemars(inner(range(min = 0.01, max = 100.0)), extend("default" = [0.75, 1.333]))]
    pub ratio: Option<[f64; 2]>,
}

/// `augment.color`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawColor {
    /// Probability of jittering an image.
    #[schemars(extend("default" = 0.6))]
    pub p: Option<Share>,
    /// Strength of the brightness change: factors from 1 - x to 1 + x.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub brightness: Option<f64>,
    /// Strength of the contrast change.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub contrast: Option<f64>,
    /// Strength of the saturation change.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub saturation: Option<f64>,
    /// Strength of the hue change in turns of the colour wheel.
    #[schemars(range(min = 0.0, max = 0.5), extend("default" = 0.0))]
    pub hue: Option<f64>,
}

/// `augment.stains`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStains {
    /// Probability of staining an image.
    #[schemars(extend("default" = 0.3))]
    pub p: Option<Share>,
    /// Largest share of the way to black or white.
    #[schemars(extend("default" = 0.5))]
    pub strength: Option<Share>,
    /// Fewest and most stains.
    #[schemars(inner(range(max = 100)), extend("default" = [1, 4]))]
    pub count: Option<[u32; 2]>,
    /// Smallest and largest diameter as fractions of the shorter side.
    #[schemars(inner(range(min = 1e-3, max = 1.0)), extend("default" = [0.05, 0.2]))]
    pub size: Option<[f64; 2]>,
}

/// `augment.scratches`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawScratches {
    /// Probability of scratching an image.
    #[schemars(extend("default" = 0.3))]
    pub p: Option<Share>,
    /// Largest share of the way to black or white.
    #[schemars(extend("default" = 0.7))]
    pub strength: Option<Share>,
    /// Fewest and most scratches.
    #[schemars(inner(range(max = 100)), extend("default" = [1, 3]))]
    pub count: Option<[u32; 2]>,
    /// Shortest and longest as fractions of the shorter side.
    #[schemars(inner(range(min = 1e-3, max = 1.0)), extend("default" = [0.1, 0.5]))]
    pub length: Option<[f64; 2]>,
}

/// `augment.occlusion`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawOcclusion {
    /// Probability of covering a part of an image.
    #[schemars(extend("default" = 0.3))]
    pub p: Option<Share>,
    /// Smallest and largest area as fractions of the image.
    #[schemars(inner(range(min = 1e-4, max = 1.0)), extend("default" = [0.01, 0.05]))]
    pub area: Option<[f64; 2]>,
    /// Smallest and largest height / width.
    #[schemars(inner(range(min = 0.01, max = 100.0)), extend("default" = [0.3, 3.3]))]
    pub ratio: Option<[f64; 2]>,
}

/// `augment.illumination`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawIllumination {
    /// Probability of changing the light of an image.
    #[schemars(extend("default" = 0.6))]
    pub p: Option<Share>,
    /// Largest relative change of the brightness at the edge; the gamma lies between 1 / (1 + x) and 1 + x.
    #[schemars(extend("default" = 0.4))]
    pub strength: Option<Share>,
}

/// `augment.blur`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBlur {
    /// Probability of blurring an image.
    #[schemars(extend("default" = 0.2))]
    pub p: Option<Share>,
    /// Largest standard deviation as a fraction of the shorter side: 0.005 are 1.1 pixels of 224.
    #[schemars(range(min = 0.0, max = 0.05), extend("default" = 0.005))]
    pub strength: Option<f64>,
}

/// `augment.stripes`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStripes {
    /// Probability of striping an image.
    #[schemars(extend("default" = 0.2))]
    pub p: Option<Share>,
    /// Largest share of the way to black or white.
    #[schemars(extend("default" = 0.25))]
    pub strength: Option<Share>,
    /// Narrowest and widest band as fractions of the shorter side.
    #[schemars(inner(range(min = 1e-3, max = 1.0)), extend("default" = [0.01, 0.06]))]
    pub width: Option<[f64; 2]>,
}

/// `augment.noise`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawNoise {
    /// Probability of adding noise to an image.
    #[schemars(extend("default" = 0.3))]
    pub p: Option<Share>,
    /// Largest standard deviation at white, where white is 1.
    #[schemars(extend("default" = 0.03))]
    pub strength: Option<Share>,
}

/// `augment.jpeg`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawJpeg {
    /// Probability of compressing an image.
    #[schemars(extend("default" = 0.3))]
    pub p: Option<Share>,
    /// Lowest and highest quality.
    #[schemars(inner(range(min = 1, max = 100)), extend("default" = [50, 95]))]
    pub quality: Option<[u8; 2]>,
}

/// `augment.erasing`: keys left out keep the preset's value, or else the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawErasing {
    /// Probability of erasing a rectangle.
    #[schemars(extend("default" = 0.3))]
    pub p: Option<Share>,
    /// Smallest and largest area as fractions of the image.
    #[schemars(inner(range(min = 1e-4, max = 1.0)), extend("default" = [0.02, 0.1]))]
    pub area: Option<[f64; 2]>,
    /// Smallest and largest height / width.
    #[schemars(inner(range(min = 0.01, max = 100.0)), extend("default" = [0.3, 3.3]))]
    pub ratio: Option<[f64; 2]>,
}
