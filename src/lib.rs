//! vitadapt adapts pretrained vision transformers to small sets of labelled images.
//!
//! The modules stand in the order in which data flows, and each uses only those before it:
//!
//! error, rng, system ← config ← data, nn, linalg, hub ← backbone ← strategy ← metrics ← probe, tsne ← train ← report ← commands

pub mod error;
pub mod rng;
pub mod system;

pub mod config;
pub mod data;
pub mod hub;
pub mod linalg;
pub mod nn;

pub mod backbone;
pub mod strategy;

pub mod metrics;
pub mod train;

pub mod report;

pub mod commands;
