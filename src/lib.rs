//! vitadapt adapts pretrained ViT and CLIP backbones to small domain image sets.
pub mod error;
pub mod metrics;
pub mod report;
pub mod rng;
