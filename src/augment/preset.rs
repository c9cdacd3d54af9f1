//! `augment.preset`: layers of the configuration that switch several operations on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `augment.preset`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AugmentPreset {
    /// Nothing.
    None,
    /// Left-right flips, a mild crop and mild jitter.
    Light,
    /// For images of a fixed camera: flips, uneven light, stains, stripes, noise, blur and erasing; no crop.
    Industrial,
}

impl AugmentPreset {
    /// What a preset puts into `[augment]`, as TOML.
    pub const LAYERS: [(&'static str, &'static str); 2] = [
        ("light", "hflip = true, crop = true, color = true"),
        (
            "industrial",
            "hflip = true, vflip = true, stains = true, illumination = true, blur = true, stripes = true, noise = true, \
             erasing = true",
        ),
    ];
}
