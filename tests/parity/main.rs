//! Outputs, gradients and steps are those of the reference libraries: timm, transformers, `open_clip`, PyTorch,
//! scikit-learn.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test stops at the first surprise

mod backbone;
#[path = "../common/mod.rs"]
mod common;
mod head;
mod lora;
mod op;
mod optim;
mod patch;
mod patchcore;
mod pool;
mod probe;
mod prompt;
mod rollout;
mod text;
mod training;
