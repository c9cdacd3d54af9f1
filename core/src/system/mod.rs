//! What the program needs from the operating system: durable files, locks, signals, memory figures.

pub mod allocator;
pub mod child;
pub mod digest;
pub mod files;
pub mod json;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod shown;
pub mod signals;
pub mod tables;
pub mod threads;
