//! `[augment]`: a preset with single overrides.

use super::Resolver;
use crate::config::augment_settings::{
    AugmentPreset, AugmentSettings, BlurSettings, ColorSettings, CropSettings, ErasingSettings, IlluminationSettings,
    JpegSettings, NoiseSettings, OcclusionSettings, ScratchesSettings, StainsSettings, StripesSettings,
};
use crate::config::raw::{Share, Shorthand, Switch};
use crate::config::raw_augment::{
    RawAugment, RawBlur, RawColor, RawCrop, RawErasing, RawIllumination, RawJpeg, RawNoise, RawOcclusion, RawScratches,
    RawStains, RawStripes,
};

/// A crop that keeps most of the image: a defect at the border usually survives it.
const CROP: CropSettings = CropSettings { scale: [0.7, 1.0], ratio: [0.75, 1.333] };
/// Mild changes of lighting; hue carries meaning in many materials, so it stays.
const COLOR: ColorSettings = ColorSettings { p: 0.6, brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.0 };
/// A few small ones, mild enough that a defect beneath remains to be seen.
const STAINS: StainsSettings = StainsSettings { p: 0.3, strength: 0.5, count: [1, 4], size: [0.05, 0.2] };
const SCRATCHES: ScratchesSettings = ScratchesSettings { p: 0.3, strength: 0.7, count: [1, 3], length: [0.1, 0.5] };
/// Smaller than erasing's: it hides, and its edges look like something.
const OCCLUSION: OcclusionSettings = OcclusionSettings { p: 0.3, area: [0.01, 0.05], ratio: [0.3, 3.3] };
const ILLUMINATION: IlluminationSettings = IlluminationSettings { p: 0.6, strength: 0.4 };
/// At most about a pixel of 224: small defects blur away first.
const BLUR: BlurSettings = BlurSettings { p: 0.2, strength: 0.005 };
const STRIPES: StripesSettings = StripesSettings { p: 0.2, strength: 0.25, width: [0.01, 0.06] };
const NOISE: NoiseSettings = NoiseSettings { p: 0.3, strength: 0.03 };
const JPEG: JpegSettings = JpegSettings { p: 0.3, quality: [50, 95] };
/// Small patches: larger ones hide whole defects.
const ERASING: ErasingSettings = ErasingSettings { p: 0.3, area: [0.02, 0.1], ratio: [0.3, 3.3] };
/// Probability of a flip or rotation that is just turned on.
const EVEN: f64 = 0.5;

/// The values of a preset.
fn preset(preset: AugmentPreset) -> AugmentSettings {
    let none = AugmentSettings { preset, ..AugmentSettings::NONE };
    match preset {
        AugmentPreset::None => none,
        AugmentPreset::Light => AugmentSettings { hflip: EVEN, crop: Some(CROP), color: Some(COLOR), ..none },
        AugmentPreset::Industrial => AugmentSettings {
            hflip: EVEN,
            vflip: EVEN,
            stains: Some(STAINS),
            illumination: Some(ILLUMINATION),
            blur: Some(BLUR),
            stripes: Some(STRIPES),
            noise: Some(NOISE),
            erasing: Some(ERASING),
            ..none
        },
    }
}

impl Resolver<'_> {
    /// Starts from the preset and lays the single keys over it.
    pub(super) fn augment(&mut self, raw: &RawAugment) -> AugmentSettings {
        let base = preset(raw.preset.unwrap_or(AugmentPreset::None));
        let settings = AugmentSettings {
            preset: base.preset,
            hflip: probability(raw.hflip.as_ref(), base.hflip),
            vflip: probability(raw.vflip.as_ref(), base.vflip),
            rotate90: probability(raw.rotate90.as_ref(), base.rotate90),
            crop: operation(raw.crop.as_ref(), base.crop, CROP, crop),
            color: operation(raw.color.as_ref(), base.color, COLOR, color).filter(jitters),
            stains: operation(raw.stains.as_ref(), base.stains, STAINS, stains).filter(|on| acts(on.p, on.strength)),
            scratches: operation(raw.scratches.as_ref(), base.scratches, SCRATCHES, scratches)
                .filter(|on| acts(on.p, on.strength)),
            occlusion: operation(raw.occlusion.as_ref(), base.occlusion, OCCLUSION, occlusion).filter(|on| on.p > 0.0),
            illumination: operation(raw.illumination.as_ref(), base.illumination, ILLUMINATION, illumination)
                .filter(|on| acts(on.p, on.strength)),
            blur: operation(raw.blur.as_ref(), base.blur, BLUR, blur).filter(|on| acts(on.p, on.strength)),
            stripes: operation(raw.stripes.as_ref(), base.stripes, STRIPES, stripes)
                .filter(|on| acts(on.p, on.strength)),
            noise: operation(raw.noise.as_ref(), base.noise, NOISE, noise).filter(|on| acts(on.p, on.strength)),
            jpeg: operation(raw.jpeg.as_ref(), base.jpeg, JPEG, jpeg).filter(|on| on.p > 0.0),
            erasing: operation(raw.erasing.as_ref(), base.erasing, ERASING, erasing).filter(|on| on.p > 0.0),
        };
        self.ranges(&settings);
        settings
    }

    fn ranges(&mut self, settings: &AugmentSettings) {
        let ranges = [
            ("crop.scale", settings.crop.map(|crop| crop.scale)),
            ("crop.ratio", settings.crop.map(|crop| crop.ratio)),
            ("stains.count", settings.stains.map(|stains| stains.count.map(f64::from))),
            ("stains.size", settings.stains.map(|stains| stains.size)),
            ("scratches.count", settings.scratches.map(|scratches| scratches.count.map(f64::from))),
            ("scratches.length", settings.scratches.map(|scratches| scratches.length)),
            ("occlusion.area", settings.occlusion.map(|occlusion| occlusion.area)),
            ("occlusion.ratio", settings.occlusion.map(|occlusion| occlusion.ratio)),
            ("stripes.width", settings.stripes.map(|stripes| stripes.width)),
            ("jpeg.quality", settings.jpeg.map(|jpeg| jpeg.quality.map(f64::from))),
            ("erasing.area", settings.erasing.map(|erasing| erasing.area)),
            ("erasing.ratio", settings.erasing.map(|erasing| erasing.ratio)),
        ];
        for (key, range) in ranges {
            range.into_iter().for_each(|range| self.ordered(&format!("augment.{key}"), range));
        }
    }
}

fn probability(raw: Option<&Switch<Share>>, base: f64) -> f64 {
    match raw {
        None => base,
        Some(Switch::OnOff(on)) => f64::from(u8::from(*on)) * EVEN,
        Some(Switch::Value(Share(p))) => *p,
    }
}

/// An operation with several values: the preset's, nothing, the defaults, or what is given laid over the preset's
/// values (or over the defaults, when the preset leaves the operation out).
fn operation<R, T>(raw: Option<&Switch<R>>, base: Option<T>, default: T, over: impl FnOnce(&R, T) -> T) -> Option<T> {
    match raw {
        None => base,
        Some(Switch::OnOff(false)) => None,
        Some(Switch::OnOff(true)) => base.or(Some(default)),
        Some(Switch::Value(raw)) => Some(over(raw, base.unwrap_or(default))),
    }
}

fn crop(raw: &RawCrop, base: CropSettings) -> CropSettings {
    CropSettings { scale: raw.scale.unwrap_or(base.scale), ratio: raw.ratio.unwrap_or(base.ratio) }
}

fn color(raw: &Shorthand<RawColor>, base: ColorSettings) -> ColorSettings {
    match raw {
        Shorthand::Number(Share(strength)) => {
            ColorSettings { brightness: *strength, contrast: *strength, saturation: *strength, ..base }
        }
        Shorthand::Table(raw) => ColorSettings {
            p: share(raw.p, base.p),
            brightness: raw.brightness.unwrap_or(base.brightness),
            contrast: raw.contrast.unwrap_or(base.contrast),
            saturation: raw.saturation.unwrap_or(base.saturation),
            hue: raw.hue.unwrap_or(base.hue),
        },
    }
}

fn stains(raw: &Shorthand<RawStains>, base: StainsSettings) -> StainsSettings {
    match raw {
        Shorthand::Number(Share(p)) => StainsSettings { p: *p, ..base },
        Shorthand::Table(raw) => StainsSettings {
            p: share(raw.p, base.p),
            strength: share(raw.strength, base.strength),
            count: raw.count.unwrap_or(base.count),
            size: raw.size.unwrap_or(base.size),
        },
    }
}

fn scratches(raw: &Shorthand<RawScratches>, base: ScratchesSettings) -> ScratchesSettings {
    match raw {
        Shorthand::Number(Share(p)) => ScratchesSettings { p: *p, ..base },
        Shorthand::Table(raw) => ScratchesSettings {
            p: share(raw.p, base.p),
            strength: share(raw.strength, base.strength),
            count: raw.count.unwrap_or(base.count),
            length: raw.length.unwrap_or(base.length),
        },
    }
}

fn occlusion(raw: &Shorthand<RawOcclusion>, base: OcclusionSettings) -> OcclusionSettings {
    match raw {
        Shorthand::Number(Share(p)) => OcclusionSettings { p: *p, ..base },
        Shorthand::Table(raw) => OcclusionSettings {
            p: share(raw.p, base.p),
            area: raw.area.unwrap_or(base.area),
            ratio: raw.ratio.unwrap_or(base.ratio),
        },
    }
}

fn illumination(raw: &Shorthand<RawIllumination>, base: IlluminationSettings) -> IlluminationSettings {
    match raw {
        Shorthand::Number(Share(p)) => IlluminationSettings { p: *p, ..base },
        Shorthand::Table(raw) => {
            IlluminationSettings { p: share(raw.p, base.p), strength: share(raw.strength, base.strength) }
        }
    }
}

fn blur(raw: &Shorthand<RawBlur>, base: BlurSettings) -> BlurSettings {
    match raw {
        Shorthand::Number(Share(p)) => BlurSettings { p: *p, ..base },
        Shorthand::Table(raw) => {
            BlurSettings { p: share(raw.p, base.p), strength: raw.strength.unwrap_or(base.strength) }
        }
    }
}

fn stripes(raw: &Shorthand<RawStripes>, base: StripesSettings) -> StripesSettings {
    match raw {
        Shorthand::Number(Share(p)) => StripesSettings { p: *p, ..base },
        Shorthand::Table(raw) => StripesSettings {
            p: share(raw.p, base.p),
            strength: share(raw.strength, base.strength),
            width: raw.width.unwrap_or(base.width),
        },
    }
}

fn noise(raw: &Shorthand<RawNoise>, base: NoiseSettings) -> NoiseSettings {
    match raw {
        Shorthand::Number(Share(p)) => NoiseSettings { p: *p, ..base },
        Shorthand::Table(raw) => {
            NoiseSettings { p: share(raw.p, base.p), strength: share(raw.strength, base.strength) }
        }
    }
}

fn jpeg(raw: &Shorthand<RawJpeg>, base: JpegSettings) -> JpegSettings {
    match raw {
        Shorthand::Number(Share(p)) => JpegSettings { p: *p, ..base },
        Shorthand::Table(raw) => JpegSettings { p: share(raw.p, base.p), quality: raw.quality.unwrap_or(base.quality) },
    }
}

fn erasing(raw: &Shorthand<RawErasing>, base: ErasingSettings) -> ErasingSettings {
    match raw {
        Shorthand::Number(Share(p)) => ErasingSettings { p: *p, ..base },
        Shorthand::Table(raw) => ErasingSettings {
            p: share(raw.p, base.p),
            area: raw.area.unwrap_or(base.area),
            ratio: raw.ratio.unwrap_or(base.ratio),
        },
    }
}

fn share(raw: Option<Share>, base: f64) -> f64 {
    raw.map_or(base, |Share(x)| x)
}

/// Whether an operation changes anything at all.
fn acts(p: f64, strength: f64) -> bool {
    p > 0.0 && strength > 0.0
}

/// The same for the jitter.
fn jitters(color: &ColorSettings) -> bool {
    let ColorSettings { p, brightness, contrast, saturation, hue } = *color;
    acts(p, brightness.max(contrast).max(saturation).max(hue))
}
