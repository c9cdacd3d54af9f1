//! How well maps of evidence find flaws, held against masks: the content of `places-<split>.json`.
//!
//! A map has one value a place, so pixels of one place count together; all is counted in pixels of the images.

use super::mean;
use serde::{Deserialize, Serialize};

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
    /// The chance that a masked pixel has more evidence than one that is not, ties counting half.
    pub pixel_auroc: Option<f64>,
    /// The share of a region that is found, on average over regions, and over the thresholds at which up to 30 % of the
    /// other pixels are (per-region overlap, Bergmann et al. 2020).
    pub pro: Option<f64>,
}

/// Pixels of one place.
struct Counted {
    evidence: f32,
    sound: u32,
    /// Of each region: its number and pixels.
    regions: Vec<(usize, u32)>,
}

impl Places {
    /// Of the maps of a split.
    pub fn new(split: &str, maps: &[MaskedMap]) -> Self {
        let masked = || maps.iter().filter(|map| !map.regions.is_empty());
        let share = |hits: &dyn Fn(&MaskedMap) -> bool| mean(masked().map(|map| f64::from(u8::from(hits(map)))));
        let (mut places, mut sizes) = (Vec::new(), Vec::new());
        for map in maps {
            let first = sizes.len();
            sizes.extend(map.regions.iter().map(|region| region.iter().map(|&(_, n)| u64::from(n)).sum::<u64>()));
            let mut regions: Vec<Vec<(usize, u32)>> = vec![Vec::new(); map.evidence.len()];
            for (number, region) in map.regions.iter().enumerate() {
                region.iter().for_each(|&(place, n)| regions[place].push((first + number, n)));
            }
            let each = map.evidence.iter().zip(&map.sound).zip(regions);
            places.extend(each.map(|((&evidence, &sound), regions)| Counted { evidence, sound, regions }));
        }
        places.sort_by(|a, b| b.evidence.total_cmp(&a.evidence));
        Self {
            split: split.to_owned(),
            images: maps.len(),
            masked: masked().count(),
            regions: sizes.len(),
            pointing_game: share(&points_at_a_region),
            box_holds: share(&|map| map.box_holds == Some(true)),
            pixel_auroc: pixel_auroc(&places),
            pro: per_region_overlap(&places, &sizes),
        }
    }
}

/// Whether the first place of most evidence has a pixel of a region.
fn points_at_a_region(map: &MaskedMap) -> bool {
    let most = (0..map.evidence.len()).rev().max_by(|&a, &b| map.evidence[a].total_cmp(&map.evidence[b]));
    most.is_some_and(|most| map.regions.iter().flatten().any(|&(place, _)| place == most))
}

/// Places of equal evidence together, the most first.
fn ties(places: &[Counted]) -> impl Iterator<Item = &[Counted]> {
    places.chunk_by(|a, b| a.evidence == b.evidence)
}

fn sound(places: &[Counted]) -> f64 {
    places.iter().map(|place| f64::from(place.sound)).sum()
}

fn pixel_auroc(places: &[Counted]) -> Option<f64> {
    let flawed = |places: &[Counted]| places.iter().flat_map(|p| &p.regions).map(|&(_, n)| f64::from(n)).sum::<f64>();
    let (all_sound, all_flawed) = (sound(places), flawed(places));
    let (mut above, mut area) = (0.0, 0.0);
    for tied in ties(places) {
        let found = flawed(tied);
        area += sound(tied) * (above + found / 2.0);
        above += found;
    }
    (all_sound > 0.0 && all_flawed > 0.0).then(|| area / all_sound / all_flawed)
}

fn per_region_overlap(places: &[Counted], sizes: &[u64]) -> Option<f64> {
    let all_sound = sound(places);
    if all_sound == 0.0 || sizes.is_empty() {
        return None;
    }
    let (mut rate, mut overlap, mut area) = (0.0, 0.0, 0.0);
    for tied in ties(places) {
        let found: f64 =
            tied.iter().flat_map(|p| &p.regions).map(|&(region, n)| f64::from(n) / sizes[region] as f64).sum();
        let (step, rise) = (sound(tied) / all_sound, found / sizes.len() as f64);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of ten places of ten pixels each.
    fn map(evidence: [f32; 10], regions: &[&[(usize, u32)]]) -> MaskedMap {
        let masked =
            |place| regions.iter().copied().flatten().filter(|(at, _)| *at == place).map(|(_, n)| n).sum::<u32>();
        MaskedMap {
            evidence: evidence.into(),
            sound: (0..10).map(|place| 10 - masked(place)).collect(),
            regions: regions.iter().map(|region| region.to_vec()).collect(),
            box_holds: None,
        }
    }

    #[test]
    fn a_map_that_is_the_mask_is_perfect_and_one_that_is_flat_knows_nothing() {
        let mut evidence = [0.0; 10];
        evidence[3] = 1.0;
        let sharp = Places::new("test", &[map(evidence, &[&[(3, 10)]]), map([0.0; 10], &[])]);
        assert_eq!((sharp.images, sharp.masked, sharp.regions), (2, 1, 1));
        assert_eq!((sharp.pointing_game, sharp.pixel_auroc, sharp.pro), (Some(1.0), Some(1.0), Some(1.0)));
        let flat = Places::new("test", &[map([0.5; 10], &[&[(3, 10)]])]);
        assert_eq!((flat.pointing_game, flat.pixel_auroc), (Some(0.0), Some(0.5)));
        // Overlap rises with the share of sound pixels from 0 to 0.3: half of that on average.
        assert!((flat.pro.unwrap() - 0.15).abs() < 1e-9);
    }

    #[test]
    fn regions_count_alike_whatever_their_size() {
        // The large region is found first, the small one after 9 of 79 sound pixels... that is within the limit.
        let mut evidence = [0.0; 10];
        (evidence[0], evidence[1], evidence[2]) = (3.0, 2.0, 1.0);
        let found = Places::new("test", &[map(evidence, &[&[(0, 10), (1, 10)], &[(2, 1)]])]);
        // All of the large region at rate 0; the small one within the step of 9 of 79.
        let step = 9.0 / 79.0;
        let expected = (0.5 * 0.3 + 0.5 * (step / 2.0 + 0.3 - step)) / 0.3;
        assert!((found.pro.unwrap() - expected).abs() < 1e-9);
        // Pairs: 20 pixels above all 79; the small one above 70 and level with 9.
        assert!((found.pixel_auroc.unwrap() - (20.0 + 74.5 / 79.0) / 21.0).abs() < 1e-9);
        let none = Places::new("test", &[map([0.0; 10], &[])]);
        assert_eq!((none.pointing_game, none.pixel_auroc, none.pro), (None, None, None));
    }
}
