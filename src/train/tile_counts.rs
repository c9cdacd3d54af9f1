//! How many tiles images have, for forecasts.

use crate::data::transform::Tiles;

/// Images that are cut into tiles, each of which is one pass of the backbone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TileCounts {
    /// Tiles of an image, on average.
    pub mean: f64,
    /// Tiles of the image that has the most.
    pub most: usize,
    /// Bytes of the largest image as pixels.
    pub image_bytes: u64,
    /// Images that are in memory as pixels at a time.
    pub decoded: usize,
}

impl TileCounts {
    /// The counts for images of these sizes, of which so many are `decoded` at a time.
    pub fn of(tiles: &Tiles, sizes: &[(u32, u32)], decoded: usize) -> Self {
        let counts = || sizes.iter().map(|&size| tiles.count(size));
        let bytes = |&(width, height): &(u32, u32)| 3 * u64::from(width) * u64::from(height);
        Self {
            mean: counts().sum::<usize>() as f64 / sizes.len().max(1) as f64,
            most: counts().max().unwrap_or(0),
            image_bytes: sizes.iter().map(bytes).max().unwrap_or(0),
            decoded,
        }
    }
}
