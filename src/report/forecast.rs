//! The memory and time that training will take, in words.

use crate::train::forecast::Memory;
use crate::train::work::Work;
use serde::{Deserialize, Serialize};

/// An estimate of training before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Estimated peak by its parts.
    pub memory: Memory,
    /// What the features of frozen layers take on disk.
    #[serde(default)]
    pub cache_bytes: u64,
    /// Free memory of the device; none where it is unknown.
    pub free_bytes: Option<u64>,
    /// Parts a step is cut into.
    pub micro_batches: usize,
    /// Estimated time of the training, without reading the images.
    pub seconds: f64,
    /// What is computed.
    #[serde(default)]
    pub work: Work,
    /// Whether the estimate leaves room to spare.
    pub fits: bool,
    /// Estimated peak with gradient checkpointing; none when it is on.
    pub checkpointed_bytes: Option<u64>,
}

impl Forecast {
    /// One line.
    pub fn sentence(&self) -> String {
        let total = mebibytes(self.memory.total());
        let free = self.free_bytes.map(|free| format!(" of {} free", mebibytes(free))).unwrap_or_default();
        let cut = match self.micro_batches {
            1 => String::new(),
            parts => format!(", steps cut into {parts} micro-batches"),
        };
        format!("about {total}{free}, about {}{cut}", duration(self.seconds))
    }

    /// The parts of the memory, the largest first, and what the cache takes on disk.
    pub fn parts(&self) -> Vec<(&'static str, String)> {
        let memory = &self.memory;
        let mut parts = vec![
            ("weights", memory.weights),
            ("gradients", memory.gradients),
            ("optimizer", memory.optimizer),
            ("activations", memory.activations),
            ("images", memory.inputs),
            ("program", memory.program),
        ];
        parts.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        if self.cache_bytes > 0 {
            parts.push(("cache on disk", self.cache_bytes));
        }
        parts.into_iter().map(|(name, bytes)| (name, mebibytes(bytes))).collect()
    }

    /// What to change when it does not fit; nothing when it does.
    pub fn warning(&self) -> Option<String> {
        if self.fits {
            return None;
        }
        let checkpointing = match self.checkpointed_bytes {
            Some(bytes) if bytes < self.memory.total() => {
                format!("train.checkpoint_blocks = true (about {}), ", mebibytes(bytes))
            }
            _ => String::new(),
        };
        Some(format!(
            "this may not fit into memory: about {} needed, {} free. To need less: {checkpointing}a smaller \
             model.image_size, strategy.kind = \"partial\" or \"lora\", or a smaller backbone",
            mebibytes(self.memory.total()),
            self.free_bytes.map_or("an unknown amount".into(), mebibytes)
        ))
    }
}

/// 1536 MiB as `1.5 GiB`, less as whole MiB.
pub fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        small @ 0..=1023 => format!("{small} MiB"),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// A forecast duration in whole seconds, minutes or hours.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{} s", s.ceil()),
        s if s < 5400.0 => format!("{} min", (s / 60.0).round()),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A measured duration: 12.3 s, 2.5 min or 1.5 h.
pub(super) fn elapsed(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5400.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(fits: bool) -> Forecast {
        let memory = Memory {
            weights: 80 << 20,
            gradients: 160 << 20,
            optimizer: 160 << 20,
            activations: 2 << 30,
            inputs: 40 << 20,
            program: 60 << 20,
        };
        let checkpointed_bytes = Some(700 << 20);
        Forecast {
            memory,
            cache_bytes: 5 << 20,
            free_bytes: Some(3 << 30),
            micro_batches: 2,
            seconds: 200.0,
            work: Work::default(),
            fits,
            checkpointed_bytes,
        }
    }

    #[test]
    fn says_what_it_takes() {
        let text = forecast(true).sentence();
        assert_eq!(text, "about 2.5 GiB of 3.0 GiB free, about 3 min, steps cut into 2 micro-batches");
        assert_eq!(forecast(true).parts()[0], ("activations", "2.0 GiB".to_owned()));
        assert_eq!(forecast(true).parts().last(), Some(&("cache on disk", "5 MiB".to_owned())));
        assert_eq!(forecast(true).warning(), None);
    }

    #[test]
    fn says_what_to_change_when_it_does_not_fit() {
        let text = forecast(false).warning().unwrap();
        assert!(text.contains("checkpoint_blocks = true (about 700 MiB)"), "{text}");
        let already = Forecast { checkpointed_bytes: None, ..forecast(false) };
        assert!(!already.warning().unwrap().contains("checkpoint_blocks"));
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!([duration(0.2), duration(600.0), duration(9000.0)], ["1 s", "10 min", "2.5 h"]);
    }
}
