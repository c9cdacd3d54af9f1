//! Training: one loop, and the parts it is made of.
//!
//! feed (batches) → mix → trainer (sharded gradients) → gradients (sum, clip) → adamw (update) → checkpoint; `fit` drives.

pub mod adamw;
pub mod checkpoint;
pub mod classifier;
pub mod cosine;
pub mod directions;
pub mod early_stop;
pub mod feed;
pub mod fit;
pub mod forecast;
pub mod gradients;
pub mod mix;
pub mod pass;
pub mod progress;
pub mod safeguard;
pub mod schedule;
pub mod trainer;
