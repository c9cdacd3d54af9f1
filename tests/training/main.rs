//! The training loop from inside: its steps and their gradients, and what is resumed.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

mod bags;
#[path = "../common/mod.rs"]
mod common;
mod resume;
mod steps;
