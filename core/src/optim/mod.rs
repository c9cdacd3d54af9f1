//! What a step of training does to parameters once their gradients are there, each in one pass over memory.

pub mod adamw;
pub mod average;
pub mod gradients;
