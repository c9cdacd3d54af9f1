//! The registry of weight families.

use super::family::Family;
use super::{
    hf_aimv2, hf_beit, hf_clip, hf_deit, hf_dinov2, hf_dinov3, hf_internvl, hf_masked, hf_mlcd, hf_pixio, hf_radio,
    hf_siglip, hf_siglip2, hf_tips, hf_vit,
};
use super::{open_clip, timm, timm_beit, timm_eva, timm_naflex, timm_relpos};

/// All families, in the order in which they are asked.
pub const FAMILIES: &[&Family] = &[
    &timm_eva::FAMILY,
    &timm_beit::FAMILY,
    &timm_relpos::FAMILY,
    &timm_naflex::FAMILY,
    &timm::FAMILY,
    &open_clip::FAMILY,
    &hf_vit::FAMILY,
    &hf_beit::FAMILY,
    &hf_deit::FAMILY,
    &hf_clip::FAMILY,
    &hf_dinov2::FAMILY,
    &hf_dinov3::FAMILY,
    &hf_siglip::FAMILY,
    &hf_siglip2::FAMILY,
    &hf_masked::FAMILY,
    &hf_aimv2::FAMILY,
    &hf_internvl::FAMILY,
    &hf_tips::FAMILY,
    &hf_radio::FAMILY,
    &hf_pixio::FAMILY,
    &hf_mlcd::FAMILY,
];
