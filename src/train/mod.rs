//! Training: one loop, and the parts it is made of.

pub mod adamw;
pub mod classifier;
pub mod gradients;
pub mod schedule;
pub mod workers;
