//! What a user sees while a model trains: a progress bar, a line per epoch, `metrics.jsonl`, TensorBoard, the curves.

use super::tensorboard::Events;
use super::{Console, ProgressBar, Run, percent, plots};
use crate::error::{Error, Result};
use crate::system::files::{append_line, read_regular, write_atomic};
use crate::train::fit::Observer;
use crate::train::progress::{EpochRecord, Progress};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Drawing the curves takes at most one part in so many of the time while epochs go by quickly.
const DRAWING_SHARE: u32 = 20;

/// Reports training to the console and to the run directory.
pub struct TrainingReport<'a> {
    console: &'a Console,
    metrics: PathBuf,
    events: Events,
    curves: PathBuf,
    title: String,
    /// Those done so far.
    history: Vec<EpochRecord>,
    best: Option<usize>,
    /// The curves are not drawn again before this time.
    next: Instant,
    epochs: usize,
    images: usize,
    bar: Option<ProgressBar>,
}

impl<'a> TrainingReport<'a> {
    /// Begins `metrics.jsonl` with the epochs that are done already: an epoch that was reported but not saved when the
    /// run was killed is trained, and reported, again.
    ///
    /// # Errors
    /// When the run directory cannot be written to.
    pub fn new(
        console: &'a Console,
        run: &Run,
        title: String,
        (epochs, images): (usize, usize),
        progress: &Progress,
    ) -> Result<Self> {
        let metrics = run.path("metrics.jsonl");
        let mut text = String::new();
        for record in &progress.history {
            text.push_str(&line(record, &metrics)?);
            text.push('\n');
        }
        write_atomic(&metrics, text.as_bytes())?;
        let events = Events::create(run.folder(), progress.step)?;
        let (curves, history, best) =
            (run.path("plots/curves"), progress.history.clone(), progress.early_stop.best_epoch());
        let next = Instant::now();
        Ok(Self { console, metrics, events, curves, title, history, best, next, epochs, images, bar: None })
    }

    fn draw_curves(&mut self) -> Result<()> {
        let clock = Instant::now();
        if clock < self.next {
            return Ok(());
        }
        let picture = plots::Curves { title: &self.title, epochs: &self.history, best_epoch: self.best };
        plots::save(&picture, &self.curves)?;
        self.next = Instant::now() + DRAWING_SHARE * clock.elapsed().max(Duration::from_millis(1));
        Ok(())
    }
}

/// The epochs that a run directory records, without a last one that was cut off when the run was killed.
pub fn read_epochs(folder: &Path) -> Vec<EpochRecord> {
    let bytes = read_regular(&folder.join("metrics.jsonl")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

fn line(record: &EpochRecord, path: &Path) -> Result<String> {
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
        self.events.epoch(record)?;
        self.history.push(*record);
        if best {
            self.best = Some(record.epoch);
        }
        self.draw_curves()?;
        let validation = match (record.val_loss, record.val_accuracy) {
            (Some(loss), Some(accuracy)) => format!(", val loss {loss:.4} accuracy {}", percent(accuracy)),
            (None, Some(_)) => ", val loss is not finite".to_owned(),
            _ => String::new(),
        };
        let speed = record.images_per_second.map_or(String::new(), |speed| format!(", {speed:.0} images/s"));
        self.console.info(format!(
            "epoch {:>2}/{}  train loss {:.4} accuracy {}{validation}{speed}{}",
            record.epoch,
            self.epochs,
            record.train_loss,
            percent(record.train_accuracy),
            if best { "  *" } else { "" }
        ));
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        self.console.warn(message);
    }
}
