//! The registry of weight families.

use super::family::Family;
use super::hf_clip::HfClip;
use super::hf_deit::HfDeit;
use super::hf_dinov2::HfDinov2;
use super::hf_dinov3::HfDinov3;
use super::hf_masked::HfMasked;
use super::hf_siglip::HfSiglip;
use super::hf_siglip2::HfSiglip2;
use super::hf_vit::HfVit;
use super::open_clip::OpenClip;
use super::timm::TimmVit;
use super::timm_beit::TimmBeit;
use super::timm_eva::TimmEva;
use super::timm_naflex::TimmNaflex;
use super::timm_relpos::TimmRelPos;

/// All families, in the order in which they are asked.
pub const FAMILIES: &[&dyn Family] = &[
    &TimmEva,
    &TimmBeit,
    &TimmRelPos,
    &TimmNaflex,
    &TimmVit,
    &OpenClip,
    &HfVit,
    &HfDeit,
    &HfClip,
    &HfDinov2,
    &HfDinov3,
    &HfSiglip,
    &HfSiglip2,
    &HfMasked,
];
