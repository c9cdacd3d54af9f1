//! What a user sees of a run: tables, pictures, logs, the verdict, and the files of the run directory.

mod console;
mod files;
mod memory;
pub mod plots;
mod table;
mod verdict;

pub use console::{Console, Progress, Verbosity};
pub use files::{append_line, write_atomic};
pub use memory::peak_memory_bytes;
pub use table::{confusion_table, evaluation_table, key_value_table, percent};
pub use verdict::{Verdict, verdict};

/// What curves and verdict need of one epoch. Losses are in nats, accuracies from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Mean loss over the training images as they were seen, augmented.
    pub train_loss: f64,
    /// Accuracy on the training images as they were seen.
    pub train_accuracy: f64,
    /// Mean loss on validation; none without a validation split.
    pub val_loss: Option<f64>,
    /// Accuracy on validation; none without a validation split.
    pub val_accuracy: Option<f64>,
}

/// A name fit for one line of a table or picture: control characters become visible escapes.
fn printable(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
