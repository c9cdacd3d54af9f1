//! vitadapt's built-in backbone `vit-flaw`, as timm saves a model. A crate of its own, because vitadapt with both of its
//! backbones would be larger than a registry takes.

/// `config.json`.
pub const CONFIG: &str = include_str!("config.json");

/// `model.safetensors`.
pub const WEIGHTS: &[u8] = include_bytes!("model.safetensors");
