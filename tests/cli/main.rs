//! The command line as a user meets it: every command on small data, in processes of its own.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod agree;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod export;
mod faults;
mod features;
mod finished;
mod first;
mod formats;
mod heads;
mod honest;
mod inspection;
mod kill;
mod memory;
mod patchcore;
mod poison;
mod pools;
mod prompt;
mod report;
mod runs;
mod snapshot;
mod tiles;
mod training;
mod wide;
mod zeroshot;
