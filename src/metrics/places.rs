//! How well maps of evidence find flaws, held against masks: the content of `places-<split>.json`.
//!
//! A map has one value a place, so pixels of one place count together; all is counted in pixels of the images.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The share of sound pixels up to which overlap with regions is averaged (Bergmann et al. 2020).
const PRO_LIMIT: f64 = 0.3;

/// The map of one image beside its mask.
#[derive(Debug, Clone, Default)]
pub struct MaskedMap {
    /// The evidence at each place.
    pub evidence: Vec<f32>,
    /// Pixels of each place that are not masked.
    pub sound: Vec<u32>,
    /// Masked pixels that hang together, by place: place and number of pixels.
    pub regions: Vec<Vec<(usize, u32)>>,
    /// Whether the box around the strongest place holds half of a region at least; none without a box.
    pub box_holds: Option<bool>,
    /// Whether the image is told to be flawed: its likeliest class has masks.
    pub found: bool,
}

/// How well maps find flaws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Places {
    /// The split or folder that was scored.
    pub split: String,
    /// Images.
    pub images: usize,
    /// Those with a mask.
    pub masked: usize,
    /// Masked pixels that hang together.
    pub regions: usize,
    /// The share of masked images whose place of most evidence has a masked pixel (pointing game, Zhang et al. 2016).
    pub pointing_game: Option<f64>,
    /// The share of masked images whose box around the strongest place holds half of a region at least.
    pub box_holds: Option<f64>,
    /// Masked images that are told to be flawed.
    #[serde(default)]
    pub finds: usize,
    /// The share of these whose box holds half of a region at least.
    pub box_holds_in_finds: Option<f64>,
    /// The chance that a masked pixel has more evidence than one that is not, ties counting half.
    pub pixel_auroc: Option<f64>,
    /// The share of a region that is found, on average over regions, and over the thresholds at which up to 30 % of the
    /// other pixels are (per-region overlap, Bergmann et al. 2020).
    pub pro: Option<f64>,
}

/// Places whose evidence is the same to one part in 4096.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    /// Pixels that are not masked.
    sound: u64,
    /// Masked ones.
    flawed: u64,
    /// The same, each as a share of its region.
    regions: f64,
}

/// What maps have shown so far: of any number of images, in bounded memory.
#[derive(Debug, Clone, Default)]
pub struct PlaceTally {
    images: usize,
    masked: usize,
    regions: usize,
    pointed: usize,
    boxed: usize,
    finds: usize,
    boxed_finds: usize,
    /// By evidence, ascending.
    levels: BTreeMap<u32, Level>,
}

impl PlaceTally {
    /// Counts one more image.
    pub fn add(&mut self, map: &MaskedMap) {
        let masked = !map.regions.is_empty();
        self.images += 1;
        self.masked += usize::from(masked);
        self.regions += map.regions.len();
        self.pointed += usize::from(masked && points_at_a_region(map));
        let boxed = masked && map.box_holds == Some(true);
        self.boxed += usize::from(boxed);
        self.finds += usize::from(masked && map.found);
        self.boxed_finds += usize::from(boxed && map.found);
        for (&evidence, &sound) in map.evidence.iter().zip(&map.sound) {
            self.levels.entry(level(evidence)).or_default().sound += u64::from(sound);
        }
        for region in &map.regions {
            let size: u64 = region.iter().map(|&(_, pixels)| u64::from(pixels)).sum();
            for &(place, pixels) in region {
                let level = self.levels.entry(level(map.evidence[place])).or_default();
                level.flawed += u64::from(pixels);
                level.regions += f64::from(pixels) / size as f64;
            }
        }
    }

    /// How well they have found flaws, under the name of their split.
    pub fn places(&self, split: &str) -> Places {
        let share_of = |all: usize, hits: usize| (all > 0).then(|| hits as f64 / all as f64);
        let share = |hits: usize| share_of(self.masked, hits);
        Places {
            split: split.to_owned(),
            images: self.images,
            masked: self.masked,
            regions: self.regions,
            pointing_game: share(self.pointed),
            box_holds: share(self.boxed),
            finds: self.finds,
            box_holds_in_finds: share_of(self.finds, self.boxed_finds),
            pixel_auroc: self.pixel_auroc(),
            pro: self.per_region_overlap(),
        }
    }

    /// The most evidence first.
    fn descending(&self) -> impl Iterator<Item = &Level> {
        self.levels.values().rev()
    }

    fn sound(&self) -> f64 {
        self.levels.values().map(|level| level.sound).sum::<u64>() as f64
    }

    fn pixel_auroc(&self) -> Option<f64> {
        let (mut above, mut area) = (0.0, 0.0);
        for level in self.descending() {
            let found = level.flawed as f64;
            area += level.sound as f64 * (above + found / 2.0);
            above += found;
        }
        let pairs = self.sound() * above;
        (pairs > 0.0).then(|| area / pairs)
    }

    fn per_region_overlap(&self) -> Option<f64> {
        let all_sound = self.sound();
        if all_sound == 0.0 || self.regions == 0 {
            return None;
        }
        let (mut rate, mut overlap, mut area) = (0.0, 0.0, 0.0);
        for level in self.descending() {
            let (step, rise) = (level.sound as f64 / all_sound, level.regions / self.regions as f64);
            let within = if step > 0.0 { ((PRO_LIMIT - rate) / step).min(1.0) } else { 1.0 };
            area += step * within * (overlap + rise * within / 2.0);
            rate += step;
            overlap += rise;
            if rate >= PRO_LIMIT {
                break;
            }
        }
        Some(area / PRO_LIMIT)
    }
}

/// Numbers in the order of the evidence, equal for values that are nearly so: its sign, exponent and first 11 binary digits.
fn level(evidence: f32) -> u32 {
    let bits = (evidence + 0.0).to_bits(); // -0 is 0
    let ordered = if evidence.is_sign_negative() && bits != 0 { !bits } else { bits | 1 << 31 };
    ordered >> 12
}

/// Whether the first place of most evidence has a pixel of a region.
fn points_at_a_region(map: &MaskedMap) -> bool {
    let most = (0..map.evidence.len()).rev().max_by(|&a, &b| map.evidence[a].total_cmp(&map.evidence[b]));
    most.is_some_and(|most| map.regions.iter().flatten().any(|&(place, _)| place == most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(maps: &[MaskedMap]) -> Places {
        let mut tally = PlaceTally::default();
        maps.iter().for_each(|map| tally.add(map));
        tally.places("test")
    }

    #[test]
    fn levels_keep_the_order_of_evidence_and_are_few() {
        let values = [f32::NEG_INFINITY, -3.0, -2.999, -1e-9, 0.0, 1e-9, 0.5, 0.6, 7.0, 7.1, f32::INFINITY];
        assert!(values.windows(2).all(|pair| level(pair[0]) < level(pair[1])), "{:?}", values.map(level));
        assert_eq!((level(-0.0), level(1.0)), (level(0.0), level(1.000_1)));
        // However many places there are, their levels are no more than those of their range.
        let mut tally = PlaceTally::default();
        let evidence: Vec<f32> = (0..200_000).map(|place| 1.0 + place as f32 / 200_000.0).collect();
        tally.add(&MaskedMap { sound: vec![1; evidence.len()], evidence, ..MaskedMap::default() });
        assert!(tally.levels.len() <= 2048 + 1, "{}", tally.levels.len());
    }

    /// A map of ten places of ten pixels each.
    fn map(evidence: [f32; 10], regions: &[&[(usize, u32)]]) -> MaskedMap {
        let masked =
            |place| regions.iter().copied().flatten().filter(|(at, _)| *at == place).map(|(_, n)| n).sum::<u32>();
        MaskedMap {
            evidence: evidence.into(),
            sound: (0..10).map(|place| 10 - masked(place)).collect(),
            regions: regions.iter().map(|region| region.to_vec()).collect(),
            box_holds: None,
            found: false,
        }
    }

    #[test]
    fn boxes_count_among_flaws_and_among_those_that_are_found() {
        let flawed = |holds, found| MaskedMap { box_holds: Some(holds), found, ..map([0.0; 10], &[&[(3, 10)]]) };
        let sound = MaskedMap { found: true, ..map([0.0; 10], &[]) };
        let shares =
            places(&[flawed(true, true), flawed(true, true), flawed(false, true), flawed(false, false), sound]);
        assert_eq!((shares.box_holds, shares.finds), (Some(0.5), 3));
        assert_eq!(shares.box_holds_in_finds, Some(2.0 / 3.0));
        assert_eq!(places(&[flawed(true, false)]).box_holds_in_finds, None);
    }

    #[test]
    fn a_map_that_is_the_mask_is_perfect_and_one_that_is_flat_knows_nothing() {
        let mut evidence = [0.0; 10];
        evidence[3] = 1.0;
        let sharp = places(&[map(evidence, &[&[(3, 10)]]), map([0.0; 10], &[])]);
        assert_eq!((sharp.images, sharp.masked, sharp.regions), (2, 1, 1));
        assert_eq!((sharp.pointing_game, sharp.pixel_auroc, sharp.pro), (Some(1.0), Some(1.0), Some(1.0)));
        let flat = places(&[map([0.5; 10], &[&[(3, 10)]])]);
        assert_eq!((flat.pointing_game, flat.pixel_auroc), (Some(0.0), Some(0.5)));
        // Overlap rises with the share of sound pixels from 0 to 0.3: half of that on average.
        assert!((flat.pro.unwrap() - 0.15).abs() < 1e-9);
    }

    #[test]
    fn regions_count_alike_whatever_their_size() {
        // The large region is found first, the small one after 9 of 79 sound pixels... that is within the limit.
        let mut evidence = [0.0; 10];
        (evidence[0], evidence[1], evidence[2]) = (3.0, 2.0, 1.0);
        let found = places(&[map(evidence, &[&[(0, 10), (1, 10)], &[(2, 1)]])]);
        // All of the large region at rate 0; the small one within the step of 9 of 79.
        let step = 9.0 / 79.0;
        let expected = (0.5 * 0.3 + 0.5 * (step / 2.0 + 0.3 - step)) / 0.3;
        assert!((found.pro.unwrap() - expected).abs() < 1e-9);
        // Pairs: 20 pixels above all 79; the small one above 70 and level with 9.
        assert!((found.pixel_auroc.unwrap() - (20.0 + 74.5 / 79.0) / 21.0).abs() < 1e-9);
        let none = places(&[map([0.0; 10], &[])]);
        assert_eq!((none.pointing_game, none.pixel_auroc, none.pro), (None, None, None));
    }
}
