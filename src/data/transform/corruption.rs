//! One kind of flaw at a chosen strength, to measure how robust a model is against it.

use crate::config::{
    AugmentSettings, BlurSettings, IlluminationSettings, JpegSettings, NoiseSettings, OcclusionSettings,
    ScratchesSettings, StainsSettings, StripesSettings,
};

/// A kind of flaw in images: the operation of the same name in `[augment]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    /// Spots and drops.
    Stains,
    /// Thin lines.
    Scratches,
    /// A rectangle in front of the object.
    Occlusion,
    /// Uneven light.
    Illumination,
    /// Gaussian or motion blur.
    Blur,
    /// Bands.
    Stripes,
    /// Noise of a sensor.
    Noise,
    /// Lossy compression.
    Jpeg,
}

impl Corruption {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Stains,
        Self::Scratches,
        Self::Occlusion,
        Self::Illumination,
        Self::Blur,
        Self::Stripes,
        Self::Noise,
        Self::Jpeg,
    ];

    /// The key in `[augment]`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stains => "stains",
            Self::Scratches => "scratches",
            Self::Occlusion => "occlusion",
            Self::Illumination => "illumination",
            Self::Blur => "blur",
            Self::Stripes => "stripes",
            Self::Noise => "noise",
            Self::Jpeg => "jpeg",
        }
    }

    /// The corruption of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|corruption| corruption.name() == name)
    }

    /// Settings that apply this flaw to every image, and nothing else. A strength of 0 changes nothing, 1 is worse
    /// than any image that would be used; values outside are clamped.
    pub fn settings(self, strength: f64) -> AugmentSettings {
        let none = AugmentSettings::NONE;
        let strength = strength.clamp(0.0, 1.0);
        if strength == 0.0 {
            return none;
        }
        let p = 1.0;
        match self {
            Self::Stains => {
                let stains = StainsSettings { p, strength, count: [4, 8], size: [0.05, 0.25] };
                AugmentSettings { stains: Some(stains), ..none }
            }
            Self::Scratches => {
                let scratches = ScratchesSettings { p, strength, count: [4, 8], length: [0.2, 0.8] };
                AugmentSettings { scratches: Some(scratches), ..none }
            }
            Self::Occlusion => {
                let area = 0.4 * strength;
                let occlusion = OcclusionSettings { p, area: [area, area], ratio: [0.5, 2.0] };
                AugmentSettings { occlusion: Some(occlusion), ..none }
            }
            Self::Illumination => AugmentSettings { illumination: Some(IlluminationSettings { p, strength }), ..none },
            Self::Blur => AugmentSettings { blur: Some(BlurSettings { p, strength: 0.04 * strength }), ..none },
            Self::Stripes => {
                let stripes = StripesSettings { p, strength, width: [0.02, 0.1] };
                AugmentSettings { stripes: Some(stripes), ..none }
            }
            Self::Noise => AugmentSettings { noise: Some(NoiseSettings { p, strength: 0.5 * strength }), ..none },
            Self::Jpeg => {
                let quality = (100.0 - 99.0 * strength).round() as u8;
                AugmentSettings { jpeg: Some(JpegSettings { p, quality: [quality, quality] }), ..none }
            }
        }
    }
}

#[cfg(test)]
#[path = "corruption_tests.rs"]
mod tests;
