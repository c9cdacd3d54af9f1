//! Configuration.
mod settings;
pub use settings::*;
