//! vitadapt adapts pretrained ViT and CLIP backbones to small domain image sets.
pub mod backbone;
pub mod config;
pub mod data;
pub mod error;
pub mod nn;
pub mod rng;
pub mod system;
pub mod strategy;
pub mod train;
