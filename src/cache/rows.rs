//! Rows that were found or computed, in mapped packs or in memory.

use super::pack::Pack;
use crate::system::shown::Shown;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where one row is.
#[derive(Debug, Clone, Copy)]
pub enum RowLocation {
    /// In a mapped pack.
    Packed { pack: usize, row: usize },
    /// In memory, by its number among the rows there.
    Memory(usize),
}

/// How many rows of a request were found, how many computed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CacheUse {
    /// Rows found.
    pub hits: usize,
    /// Rows computed.
    pub misses: usize,
    /// Seconds that computing them took, with reading and decoding their images.
    #[serde(default)]
    pub seconds: f64,
}

impl std::ops::AddAssign for CacheUse {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.seconds += other.seconds;
    }
}

/// Rows of equal width by position.
#[derive(Debug, Default)]
pub struct FeatureRows {
    pub(super) width: usize,
    pub(super) packs: Vec<Pack>,
    pub(super) memory: Vec<f32>,
    pub(super) places: Vec<RowLocation>,
    /// How many were found, how many computed.
    pub usage: CacheUse,
    /// What was wrong with the cache, one sentence each.
    pub warnings: Vec<String>,
}

impl FeatureRows {
    /// Values a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        match self.places[i] {
            RowLocation::Packed { pack, row } => self.packs[pack].row(row),
            RowLocation::Memory(row) => &self.memory[row * self.width..(row + 1) * self.width],
        }
    }

    /// The rows at `positions`, one after another.
    pub fn gather(&self, positions: &[usize]) -> Vec<f32> {
        let mut values = Vec::with_capacity(positions.len() * self.width);
        positions.iter().for_each(|&position| values.extend_from_slice(self.row(position)));
        values
    }

    pub(super) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn warn_damaged(&mut self, path: &Path, reason: &str) {
        self.warn(format!("{} is damaged ({reason}); its features are computed again", path.shown()));
    }

    /// Keeps a row in memory.
    pub(super) fn remember(&mut self, row: &[f32]) -> RowLocation {
        self.memory.extend_from_slice(row);
        RowLocation::Memory(self.memory.len() / self.width.max(1) - 1)
    }

    /// Drops the last `rows` rows from memory.
    pub(super) fn forget(&mut self, rows: usize) {
        self.memory.truncate(self.memory.len() - rows * self.width);
    }
}
