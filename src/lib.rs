//! vitadapt adapts pretrained vision transformers to small sets of labelled images.
//!
//! The modules stand in the order in which data flows, and each uses only those before it:
//!
//! bitmap, error, rng, system ← kernels ← linalg, nn, pixels ← optim ← forms, size ← augment ← config ← cache, data, hub
//! ← backbone ← features, strategy, text ← metrics ← probe, tsne ← model ← train ← export ← report ← ladder ← experiment
//! ← commands
//!
//! What the command line does is in [`experiment`], for programs of your own, too: `examples/finetune.rs`.
//!
//! ```no_run
#![doc = include_str!("../examples/finetune.rs")]
//! ```

#[cfg(target_endian = "big")]
compile_error!("files take values in the order that this machine has their bytes, which must be little-endian");

// In `core/`, a crate of its own that a build for tests optimises.
pub(crate) use vitadapt_core::bitmap;
#[doc(inline)]
pub use vitadapt_core::{error, kernels, linalg, nn, optim, pixels, rng, system};

mod forms;
pub mod size;

pub mod augment;
pub mod config;

pub mod cache;
pub mod data;
pub mod hub;

pub mod backbone;
pub mod features;
pub mod strategy;
pub mod text;

pub mod metrics;
pub mod probe;
pub mod tsne;

pub mod model;

pub mod train;

pub mod export;

pub mod report;

pub mod ladder;

pub mod experiment;

pub mod commands;
