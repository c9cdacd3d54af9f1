//! `[augment]`: a preset with single overrides.

use super::Resolver;
use crate::config::raw::{RawAugment, RawColor, RawCrop, RawErasing, Share, Shorthand, Switch};
use crate::config::settings::{AugmentPreset, AugmentSettings, ColorSettings, CropSettings, ErasingSettings};

/// A crop that keeps most of the image: a defect at the border usually survives it.
const CROP: CropSettings = CropSettings { scale: [0.7, 1.0], ratio: [0.75, 1.333] };
/// Mild changes of lighting; hue carries meaning in many materials, so it stays.
const COLOR: ColorSettings = ColorSettings { p: 0.6, brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.0 };
/// Small patches: larger ones hide whole defects.
const ERASING: ErasingSettings = ErasingSettings { p: 0.3, area: [0.02, 0.1], ratio: [0.3, 3.3] };
/// Probability of a flip or rotation that is just turned on.
const EVEN: f64 = 0.5;

/// The values of a preset.
fn preset(preset: AugmentPreset) -> AugmentSettings {
    let none =
        AugmentSettings { preset, hflip: 0.0, vflip: 0.0, rotate90: 0.0, crop: None, color: None, erasing: None };
    match preset {
        AugmentPreset::None => none,
        AugmentPreset::Light => AugmentSettings { hflip: EVEN, crop: Some(CROP), color: Some(COLOR), ..none },
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
            color: operation(raw.color.as_ref(), base.color, COLOR, color).filter(acts),
            erasing: operation(raw.erasing.as_ref(), base.erasing, ERASING, erasing).filter(|erasing| erasing.p > 0.0),
        };
        self.ranges(&settings);
        settings
    }

    fn ranges(&mut self, settings: &AugmentSettings) {
        if let Some(crop) = settings.crop {
            self.ordered("augment.crop.scale", crop.scale);
            self.ordered("augment.crop.ratio", crop.ratio);
        }
        if let Some(erasing) = settings.erasing {
            self.ordered("augment.erasing.area", erasing.area);
            self.ordered("augment.erasing.ratio", erasing.ratio);
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
            p: raw.p.map_or(base.p, |Share(p)| p),
            brightness: raw.brightness.unwrap_or(base.brightness),
            contrast: raw.contrast.unwrap_or(base.contrast),
            saturation: raw.saturation.unwrap_or(base.saturation),
            hue: raw.hue.unwrap_or(base.hue),
        },
    }
}

fn erasing(raw: &Shorthand<RawErasing>, base: ErasingSettings) -> ErasingSettings {
    match raw {
        Shorthand::Number(Share(p)) => ErasingSettings { p: *p, ..base },
        Shorthand::Table(raw) => ErasingSettings {
            p: raw.p.map_or(base.p, |Share(p)| p),
            area: raw.area.unwrap_or(base.area),
            ratio: raw.ratio.unwrap_or(base.ratio),
        },
    }
}

/// Whether the jitter changes anything at all.
fn acts(color: &ColorSettings) -> bool {
    color.p > 0.0
        && [color.brightness, color.contrast, color.saturation, color.hue].iter().any(|&strength| strength > 0.0)
}
