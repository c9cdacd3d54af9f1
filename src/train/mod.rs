//! Training: one loop, and the parts it is made of.
//!
//! feed (batches) → mix → upload (ahead, on a GPU) → trainer (sharded passes) → gathering (their gradients, added) → gradients (clip) → readout (loss, hits,
//! norm) → adamw (update) → checkpoint; `fit` drives, with its parts in `step`, `epoch` and `soup`.

pub mod adamw;
pub mod anchor;
pub mod checkpoint;
pub mod classifier;
pub mod cosine;
pub mod directions;
pub mod early_stop;
pub mod ema;
pub mod epoch;
pub mod feed;
pub mod fit;
pub mod forecast;
pub mod gathering;
pub mod gradients;
pub mod lr_finder;
pub mod mix;
pub mod pass;
pub mod progress;
mod readout;
pub mod safeguard;
pub mod sam;
pub mod schedule;
pub mod soup;
pub mod state;
mod step;
pub mod swap;
pub mod trainer;
pub mod upload;
pub mod wise_ft;
