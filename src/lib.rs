//! vitadapt adapts pretrained ViT and CLIP backbones to small domain image sets.
pub mod data;
pub mod error;
pub mod rng;
