//! How far the patches of an image are from those of sound parts, as a map shows it.

use crate::data::transform::Bag;
use crate::error::Result;
use crate::features::{EvidenceGrid, Extractor, Region, TiledImages};
use crate::model::PatchHead;
use crate::probe::Strangeness;
use crate::report::html::heat_map_up_to;
use image::RgbImage;

/// Distances of an image's patches to those of sound parts.
pub struct Strange {
    /// The distances less their median, which is what is usual in the image.
    pub grid: EvidenceGrid,
    /// The threshold less the same: colours reach so far at least, so that an image without anything strange stays pale.
    reach: f32,
    /// Whether the part is defective by the run's rule.
    defective: bool,
}

impl Strange {
    /// Of images with standardised pixels, whose patches `extractor` makes; none where patches are no square.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of_squares(
        head: &PatchHead,
        extractor: &Extractor,
        pixels: &[f32],
        images: usize,
    ) -> Result<Vec<Option<Self>>> {
        let found = extractor.workers().install(|| head.compare_pixels(extractor, pixels, images))?;
        Ok(found.into_iter().map(|found| Self::new(head, found, EvidenceGrid::square)).collect())
    }

    /// Of an image that is cut into tiles.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of_bag(head: &PatchHead, images: &TiledImages<'_>, bag: &Bag) -> Result<Option<Self>> {
        let workers = images.extractor.workers();
        let found = workers.install(|| head.compare(&images.unpooled(bag)?, 1))?.pop();
        Ok(found.and_then(|found| Self::new(head, found, |values| Some(images.largest(bag, &values)))))
    }

    fn new(head: &PatchHead, found: Strangeness, grid: impl FnOnce(Vec<f32>) -> Option<EvidenceGrid>) -> Option<Self> {
        let mut sorted = found.patches.clone();
        sorted.sort_by(f32::total_cmp);
        let median = *sorted.get(sorted.len() / 2)?;
        let grid = grid(found.patches.into_iter().map(|distance| distance - median).collect())?;
        Some(Self { grid, reach: head.threshold() - median, defective: found.score >= head.threshold() })
    }

    /// The picture with its distances in colour; none when they are not finite.
    pub fn heat(&self, picture: &RgbImage) -> Option<RgbImage> {
        heat_map_up_to(picture, &self.grid.positive(), self.reach)
    }

    /// The strangest place of a defective part.
    pub fn place(&self) -> Option<Region> {
        self.grid.strongest().filter(|_| self.defective)
    }
}
