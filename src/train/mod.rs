//! Training: one loop, and the parts it is made of.
//!
//! mix → upload (in `data`; ahead, on a GPU) → trainer (shards) → backprop (forward and backward) → accumulator →
//! `optim::gradients` (clip) → `step_metrics` (loss, hits, norm) → adamw (update) → checkpoint; `fit` drives, with its parts in
//! `step`, `epoch` and `soup`.

pub mod accumulator;
pub mod adamw;
mod backprop;
mod bags;
pub mod checkpoint;
pub mod early_stop;
pub mod ema;
pub mod epoch;
pub mod fit;
pub mod forecast;
pub mod lr_finder;
pub mod mix;
mod plausible;
pub mod progress;
pub mod regulariser;
pub mod safeguard;
pub mod sam;
pub mod schedule;
pub mod snapshot;
pub mod soup;
pub mod state;
mod step;
mod step_metrics;
pub mod step_options;
mod tile_counts;
pub mod trainer;
pub mod validation;
pub mod wise_ft;
pub mod work;
