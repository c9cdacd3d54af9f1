//! Where in an image its class is found: the class's own evidence at each patch where the features are a sum over patches
//! and the head is linear, how far each patch is from those of sound parts where the head compares patches, else attention
//! roll-out, which is a hint.

use crate::backbone::Readout;
use crate::data::transform::Bag;
use crate::error::Result;
use crate::features::{EvidenceGrid, Extractor, Looked, LookedBag, Region, TiledImages};
use crate::model::{Model, PatchHead};
use crate::probe::Strangeness;
use crate::report::html::{MapKind, heat_map};
use candle_core::Tensor;
use image::RgbImage;
use std::sync::Arc;

/// What was found in an image.
pub struct Found {
    /// What the values are.
    pub kind: MapKind,
    /// The values of the places. Distances are those beyond their median, which is what is usual in the image.
    pub grid: EvidenceGrid,
    /// The strongest place; none with a hint, where nothing speaks for the class, and in a part that is sound by the run's
    /// rule.
    pub place: Option<Region>,
    /// Colours reach so far at least. Of distances it is how far a patch would have to be for the threshold, so that an image
    /// without anything strange stays pale.
    reach: f32,
}

impl Found {
    fn new(kind: MapKind, grid: EvidenceGrid) -> Self {
        let place = if kind == MapKind::Hint { None } else { grid.strongest() };
        Self { kind, grid, place, reach: f32::NEG_INFINITY }
    }

    fn strange(
        head: &PatchHead,
        found: Strangeness,
        grid: impl FnOnce(Vec<f32>) -> Option<EvidenceGrid>,
    ) -> Option<Self> {
        let mut sorted = found.patches.clone();
        sorted.sort_by(f32::total_cmp);
        let median = *sorted.get(sorted.len() / 2)?;
        // The score is the distance of the farthest patch times a weight, and the map shows distances.
        let distance = found.patches[found.farthest];
        let weight = if distance > 0.0 { found.score / distance } else { 1.0 };
        let grid = grid(found.patches.into_iter().map(|distance| distance - median).collect())?;
        let found_flaw = found.score >= head.threshold();
        let Self { kind, grid, place, .. } = Self::new(MapKind::Distance, grid.positive());
        Some(Self { kind, grid, place: place.filter(|_| found_flaw), reach: head.threshold() / weight - median })
    }

    /// The picture with the values in colour; none when they are not finite.
    pub fn heat(&self, picture: &RgbImage) -> Option<RgbImage> {
        heat_map(picture, &self.grid.positive(), self.reach)
    }
}

/// Finds classes in images.
pub struct Finder {
    /// Makes what the head reads.
    pub extractor: Extractor,
    /// The features that the head reads.
    pub readout: Readout,
    /// The weights (C, w) of the head, where that is an affine map.
    pub head: Option<Tensor>,
    /// What the head compares patches with, where it does.
    pub patches: Option<Arc<PatchHead>>,
}

impl Finder {
    /// Of the answers of a model.
    ///
    /// # Errors
    /// When a parameter is absent.
    pub fn of(model: &Model) -> Result<Self> {
        let (head, patches) = (model.linear_head(), model.patch_head());
        Ok(Self { extractor: model.extractor(model.read())?, readout: model.spec().readout, head, patches })
    }

    /// Whether what each place does to a score can be told.
    pub fn adds_up(&self) -> bool {
        self.head.is_some() || self.patches.is_some()
    }

    /// What evidence in images with standardised `pixels` is made of; none where there is no evidence.
    ///
    /// # Errors
    /// When the device fails.
    pub fn look(&self, pixels: &[f32]) -> Result<Option<Looked>> {
        Ok(if self.head.is_some() { self.extractor.look(self.readout, pixels)? } else { None })
    }

    /// Finds a class in each of some images with standardised `pixels`, which were `looked` at by [`Finder::look`]; none in
    /// those whose patches do not fill the grid. Hints come with the features of the images.
    ///
    /// # Errors
    /// When the device fails.
    pub fn find(
        &self,
        pixels: &[f32],
        looked: Option<&Looked>,
        classes: &[usize],
    ) -> Result<(Vec<Option<Found>>, Vec<f32>)> {
        let Self { extractor, readout, .. } = self;
        if let Some(head) = &self.patches {
            let compared = extractor.workers.install(|| head.compare_pixels(extractor, pixels, classes.len()))?;
            let found = |compared| Found::strange(head, compared, |values| extractor.placed(values));
            return Ok((compared.into_iter().map(found).collect(), Vec::new()));
        }
        let (kind, values, features) = if let (Some(head), Some(looked)) = (&self.head, looked) {
            (MapKind::Evidence, extractor.evidence(*readout, head, looked, classes)?, Vec::new())
        } else {
            let looks = extractor.rollout(*readout, pixels)?.into_iter().map(|look| (look.shares, look.features));
            let (shares, features): (_, Vec<_>) = looks.unzip();
            (MapKind::Hint, shares, features.concat())
        };
        let found = |values| Some(Found::new(kind, extractor.placed(values)?));
        Ok((values.into_iter().map(found).collect(), features))
    }

    /// As [`Finder::look`], of an image that is cut into tiles.
    ///
    /// # Errors
    /// When the device fails.
    pub fn look_at_tiles<'a>(&self, tiled: &'a TiledImages<'_>, bag: &'a Bag) -> Result<Option<LookedBag<'a>>> {
        Ok(if self.head.is_some() { Some(tiled.look(self.readout, bag)?) } else { None })
    }

    /// As [`Finder::find`], in an image that is cut into tiles, of which there are no hints.
    ///
    /// # Errors
    /// When the device fails.
    pub fn find_in_tiles(
        &self,
        (tiled, bag): (&TiledImages<'_>, &Bag),
        looked: Option<&LookedBag<'_>>,
        class: usize,
    ) -> Result<Option<Found>> {
        if let (Some(head), Some(looked)) = (&self.head, looked) {
            return Ok(Some(Found::new(MapKind::Evidence, looked.evidence(head, class)?)));
        }
        let Some(head) = &self.patches else { return Ok(None) };
        Ok(Found::strange(head, head.compare_bag(tiled, bag)?.0, |values| Some(tiled.largest(bag, &values))))
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
            (distance, found.score, Found::strange(&head, found, |values| EvidenceGrid::of(2.into(), values)).unwrap())
        };
        // Its distance is beyond the threshold, its score is not.
        let (distance, score, sound) = strange(3.5);
        assert!(distance > 2.0 && score < 2.0);
        assert!(sound.reach > sound.grid.values[3] && sound.place.is_none());
        let (_, score, flawed) = strange(4.5);
        assert!(score >= 2.0 && flawed.reach <= flawed.grid.values[3] && flawed.place.is_some());
    }
}
