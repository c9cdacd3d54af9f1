//! What a user sees while a model trains: a progress bar, a line an epoch, `metrics.jsonl`.

use super::{Console, ProgressBar, Run};
use crate::error::{Error, Result};
use crate::system::files::{append_line, write_atomic};
use crate::train::fit::Observer;
use crate::train::progress::{EpochRecord, Progress};
use std::path::PathBuf;

/// Reports training to the console and to the run directory.
pub struct TrainingReport<'a> {
    console: &'a Console,
    metrics: PathBuf,
    epochs: usize,
    images: usize,
    bar: Option<ProgressBar>,
}

impl<'a> TrainingReport<'a> {
    /// Begins `metrics.jsonl` with the epochs that are done already: an epoch that was reported but not saved when the
    /// run was killed is trained, and reported, again.
    ///
    /// # Errors
    /// When `metrics.jsonl` cannot be written.
    pub fn new(console: &'a Console, run: &Run, epochs: usize, images: usize, progress: &Progress) -> Result<Self> {
        let metrics = run.path("metrics.jsonl");
        let mut text = String::new();
        for record in &progress.history {
            text.push_str(&line(record, &metrics)?);
            text.push('\n');
        }
        write_atomic(&metrics, text.as_bytes())?;
        Ok(Self { console, metrics, epochs, images, bar: None })
    }
}

fn line(record: &EpochRecord, path: &std::path::Path) -> Result<String> {
    serde_json::to_string(record).map_err(|error| Error::io("write", path)(error.into()))
}

impl Observer for TrainingReport<'_> {
    fn step(&mut self, epoch: usize, _step: usize, images: usize, loss: f64) {
        let (console, epochs, all) = (self.console, self.epochs, self.images as u64);
        let bar = self.bar.get_or_insert_with(|| console.progress(all, &format!("epoch {epoch}/{epochs}")));
        bar.inc(images as u64);
        bar.message(format!("loss {loss:.4}"));
    }

    fn epoch(&mut self, record: &EpochRecord, best: bool) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        append_line(&self.metrics, &line(record, &self.metrics)?)?;
        let percent = |fraction: f64| format!("{:.1} %", 100.0 * fraction);
        let validation = match (record.val_loss, record.val_accuracy) {
            (Some(loss), Some(accuracy)) => format!(", val loss {loss:.4} accuracy {}", percent(accuracy)),
            (None, Some(_)) => ", val loss is not finite".to_owned(),
            _ => String::new(),
        };
        self.console.info(&format!(
            "epoch {:>2}/{}  train loss {:.4} accuracy {}{validation}, {:.0} images/s{}",
            record.epoch,
            self.epochs,
            record.train_loss,
            percent(record.train_accuracy),
            record.images_per_second,
            if best { "  *" } else { "" }
        ));
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        self.console.warn(message);
    }
}
