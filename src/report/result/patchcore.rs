//! What a probe of sound parts alone comes to.

use super::{served, share_within};
use crate::cache::CacheUse;
use crate::config::ProbeMethod;
use crate::metrics::{Inspection, KindScore};
use crate::report::{key_value_table, percent, thousands};
use crate::system::shown::{Shown, agree};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `probe --json` prints with `probe.method = "patchcore"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PatchcoreResult {
    /// The run directory.
    pub run: PathBuf,
    /// `probe`
    pub strategy: String,
    /// `patchcore`
    pub method: ProbeMethod,
    /// The blocks whose patches are compared, counted from 1.
    pub patch_blocks: Vec<usize>,
    /// Patches a side over which each is averaged.
    pub neighborhood: usize,
    /// Training images of sound parts.
    pub sound_images: usize,
    /// Their patches.
    pub patches: usize,
    /// How many of these were drawn to choose among: all, if there is room for them.
    pub drawn: usize,
    /// How many of the drawn ones are kept to compare with.
    pub bank: usize,
    /// A part is defective from this score on.
    pub threshold: f64,
    /// The overkill that was aimed at.
    pub overkill: f64,
    /// The share of sound parts that the held-out images show to pass: with few images less than was aimed at.
    pub passing: f64,
    /// The held-out images of sound parts.
    pub held_out_images: usize,
    /// Trainable values: none.
    pub trainable_parameters: usize,
    /// Values of the backbone.
    pub total_parameters: usize,
    /// The share of validation images told rightly as sound or not.
    pub val_accuracy: Option<f64>,
    /// The same of test images.
    pub test_accuracy: Option<f64>,
    /// Its 95 % interval.
    pub test_accuracy_ci95: Option<[f64; 2]>,
    /// How each kind of part fared.
    pub kinds: Vec<KindScore>,
    /// Wall time.
    pub seconds: f64,
    /// Largest resident memory.
    pub peak_memory_bytes: Option<u64>,
    /// How often the backbone had to run for training images.
    pub cache: CacheUse,
    /// What its decisions do to parts.
    pub inspection: Option<Inspection>,
}

impl PatchcoreResult {
    pub(super) fn table(&self) -> String {
        let blocks: Vec<String> = self.patch_blocks.iter().map(usize::to_string).collect();
        let plural = agree(blocks.len(), "block", "blocks");
        let (sound, held_out) = (self.sound_images, self.held_out_images);
        let shown = 1.0 - self.passing;
        let limit = if shown > self.overkill + 1e-9 {
            format!("; so few can show no less than {} overkill", percent(shown))
        } else {
            String::new()
        };
        key_value_table(&[
            ("probe", "patchcore".to_owned()),
            (
                "memory",
                format!(
                    "{} of {} patches of {} sound {}, {plural} {}",
                    thousands(self.bank),
                    thousands(self.patches),
                    thousands(sound),
                    agree(sound, "image", "images"),
                    blocks.join(" and ")
                ),
            ),
            (
                "threshold",
                format!(
                    "{:.4}, for {} overkill, by {} held-out sound {}{limit}",
                    self.threshold,
                    percent(self.overkill),
                    thousands(held_out),
                    agree(held_out, "image", "images")
                ),
            ),
            ("test accuracy", share_within(self.test_accuracy, self.test_accuracy_ci95)),
            ("features", served(self.cache)),
            ("time", format!("{:.1} s", self.seconds)),
            ("run", self.run.shown()),
        ])
    }
}
