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
    /// How far a patch of the image would have to be for the threshold, less the same: colours reach so far at least, so that
    /// an image without anything strange stays pale.
    reach: f32,
    /// Whether the part is defective by the run's rule.
    defective: bool,
}

impl Strange {
    /// Of images with standardised pixels, whose patches `extractor` makes; none where patches do not fill the grid.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of_pixels(
        head: &PatchHead,
        extractor: &Extractor,
        pixels: &[f32],
        images: usize,
    ) -> Result<Vec<Option<Self>>> {
        let found = extractor.workers().install(|| head.compare_pixels(extractor, pixels, images))?;
        Ok(found.into_iter().map(|found| Self::new(head, found, |values| extractor.placed(values))).collect())
    }

    /// Of an image that is cut into tiles.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of_bag(head: &PatchHead, images: &TiledImages<'_>, bag: &Bag) -> Result<Option<Self>> {
        let (found, _) = head.compare_bag(images, bag)?;
        Ok(Self::new(head, found, |values| Some(images.largest(bag, &values))))
    }

    fn new(head: &PatchHead, found: Strangeness, grid: impl FnOnce(Vec<f32>) -> Option<EvidenceGrid>) -> Option<Self> {
        let mut sorted = found.patches.clone();
        sorted.sort_by(f32::total_cmp);
        let median = *sorted.get(sorted.len() / 2)?;
        // The score is the distance of the farthest patch times a weight, and the map shows distances.
        let distance = found.patches[found.farthest];
        let weight = if distance > 0.0 { found.score / distance } else { 1.0 };
        let grid = grid(found.patches.into_iter().map(|distance| distance - median).collect())?;
        Some(Self { grid, reach: head.threshold() / weight - median, defective: found.score >= head.threshold() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ScoreRule;
    use candle_core::{Device, Tensor};

    #[test]
    fn colours_reach_the_threshold_where_the_score_does() {
        let bank = Tensor::new(&[[0f32], [1.0]], &Device::Cpu).unwrap();
        let rule = ScoreRule { threshold: 2.0, spread: 0.1 };
        let head = PatchHead::new(&PatchHead::params(bank, 0, Some(rule)).unwrap()).unwrap();
        let strange = |farthest: f32| {
            let found = head.compare(&[0.0, 0.5, 0.5, farthest], 1).unwrap().pop().unwrap();
            let distance = found.patches[3];
            (distance, found.score, Strange::new(&head, found, |values| EvidenceGrid::of(2.into(), values)).unwrap())
        };
        // Its distance is beyond the threshold, its score is not.
        let (distance, score, sound) = strange(3.5);
        assert!(distance > 2.0 && score < 2.0 && !sound.defective);
        assert!(sound.reach > sound.grid.values[3] && sound.place().is_none());
        let (_, score, flawed) = strange(4.5);
        assert!(score >= 2.0 && flawed.reach <= flawed.grid.values[3] && flawed.place().is_some());
    }
}
