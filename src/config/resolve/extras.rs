//! The keys of `[train]` beyond the plain recipe: rare classes, mixed images, averages, sharpness.

use super::Resolver;
use crate::config::head_settings::{HeadPull, WiseFt};
use crate::config::loss_settings::{LossKind, LossSettings, LossWeights, LossWeightsKind};
use crate::config::raw::{Alpha, Decay, Mix, Pull, Radius, RawTrain, Switch};
use crate::config::settings::HeadInit;

/// Where class-balanced loss stands between none (0) and inverse frequency (1): of a few hundred images a class, most
/// count as new.
const EFFECTIVE_BETA: f64 = 0.999;
/// The exponent that Lin et al. found best.
const FOCAL_GAMMA: f64 = 2.0;
/// The strength for which logit adjustment is consistent with the balanced error (Menon et al. 2021).
const TAU: f64 = 1.0;
/// The strength of mixup in its paper on `ImageNet` (Zhang et al. 2018).
const MIXUP: f64 = 0.2;
/// The strength of `CutMix` in its paper (Yun et al. 2019): every share is as likely.
const CUTMIX: f64 = 1.0;
/// The decay of FT-CLIP (Dong et al. 2022).
const EMA: f64 = 0.9998;
/// The radius that Foret et al. found to do well everywhere.
const SAM: f64 = 0.05;

impl Resolver<'_> {
    pub(super) fn class_weights(&mut self, raw: &RawTrain) -> LossWeights {
        let kind = raw.class_weights.unwrap_or(LossWeightsKind::None);
        let effective = kind == LossWeightsKind::Effective;
        self.belongs("train.effective_beta", raw.effective_beta, ("train.class_weights", "effective"), effective);
        match kind {
            LossWeightsKind::None => LossWeights::None,
            LossWeightsKind::Balanced | LossWeightsKind::Inverse => LossWeights::Balanced,
            LossWeightsKind::Effective => LossWeights::Effective { beta: raw.effective_beta.unwrap_or(EFFECTIVE_BETA) },
        }
    }

    pub(super) fn loss(&mut self, raw: &RawTrain) -> LossSettings {
        let kind = raw.loss.unwrap_or(LossKind::CrossEntropy);
        self.belongs("train.focal_gamma", raw.focal_gamma, ("train.loss", "focal"), kind == LossKind::Focal);
        self.belongs("train.tau", raw.tau, ("train.loss", "logit_adjusted"), kind == LossKind::LogitAdjusted);
        match kind {
            LossKind::CrossEntropy => LossSettings::CrossEntropy,
            LossKind::Focal => LossSettings::Focal { gamma: raw.focal_gamma.unwrap_or(FOCAL_GAMMA) },
            LossKind::LogitAdjusted => LossSettings::LogitAdjusted { tau: raw.tau.unwrap_or(TAU) },
        }
    }

    pub(super) fn soup(&mut self, raw: &RawTrain) -> usize {
        let soup = raw.soup.unwrap_or(0);
        if soup == 1 {
            self.problem("train.soup", "one epoch is no mixture", "expected 0 (off), or at least 2");
        }
        soup
    }

    pub(super) fn head_pull(&mut self, raw: &RawTrain, head: HeadInit) -> Option<HeadPull> {
        let pull = match raw.head_pull.as_ref()? {
            Switch::OnOff(false) | Switch::Value(Pull(0.0)) => return None,
            Switch::OnOff(true) => HeadPull::Adaptive,
            Switch::Value(Pull(strength)) => HeadPull::Constant(*strength),
        };
        self.starts_from_texts("train.head_pull", head).then_some(pull)
    }

    pub(super) fn wise_ft(&mut self, raw: &RawTrain, head: HeadInit) -> Option<WiseFt> {
        let wise_ft = match raw.wise_ft.as_ref()? {
            Switch::OnOff(false) => return None,
            Switch::OnOff(true) => WiseFt::Chosen,
            Switch::Value(Mix(share)) => WiseFt::Share(*share),
        };
        self.starts_from_texts("train.wise_ft", head).then_some(wise_ft)
    }

    /// Whether a key that needs a head from texts has one; refuses it otherwise, unless an override chose another head.
    fn starts_from_texts(&mut self, key: &str, head: HeadInit) -> bool {
        const HEAD: &str = "model.head_init";
        if head != HeadInit::Text && !self.supersedes(HEAD, key) {
            let hint = "leave it out, or set model.head_init = \"text\"";
            self.conflict(key, &[HEAD], "needs a head that starts from texts", hint);
        }
        head == HeadInit::Text
    }

    /// Refuses a key that has a meaning for one value of another key only, unless an override chose that value.
    fn belongs(&mut self, key: &str, given: Option<f64>, (owner, value): (&str, &str), chosen: bool) {
        if given.is_some() && !chosen && !self.supersedes(owner, key) {
            let message = format!("belongs to {owner} = \"{value}\" only");
            self.conflict(key, &[owner], message, format!("leave it out, or set {owner} = \"{value}\""));
        }
    }
}

pub(super) fn mixup(raw: &RawTrain) -> f64 {
    alpha(raw.mixup.as_ref(), MIXUP)
}

pub(super) fn cutmix(raw: &RawTrain) -> f64 {
    alpha(raw.cutmix.as_ref(), CUTMIX)
}

pub(super) fn ema(raw: &RawTrain) -> Option<f64> {
    let decay = match raw.ema.as_ref()? {
        Switch::OnOff(on) => f64::from(u8::from(*on)) * EMA,
        Switch::Value(Decay(decay)) => *decay,
    };
    (decay > 0.0).then_some(decay)
}

pub(super) fn sam(raw: &RawTrain) -> Option<f64> {
    let radius = match raw.sam.as_ref()? {
        Switch::OnOff(on) => f64::from(u8::from(*on)) * SAM,
        Switch::Value(Radius(radius)) => *radius,
    };
    (radius > 0.0).then_some(radius)
}

fn alpha(raw: Option<&Switch<Alpha>>, on: f64) -> f64 {
    match raw {
        None | Some(Switch::OnOff(false)) => 0.0,
        Some(Switch::OnOff(true)) => on,
        Some(Switch::Value(Alpha(alpha))) => *alpha,
    }
}
