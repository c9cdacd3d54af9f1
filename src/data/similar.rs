//! Near-duplicates: pictures that look the same to a person although their files differ.
//!
//! Two tests of a pair, both on the luma reduced to 32 x 32 pixels. A 63-bit hash of the signs of its low frequencies
//! (pHash, Zauner 2010: DCT coefficients against their median) finds candidates; the correlation of the small pictures
//! must be high too, since images of one texture share low frequencies without being the same. Neither changes with
//! brightness and contrast.
//!
//! Where a fixture holds parts in one position, different parts pass both tests. So the set itself says how near to each
//! other different images lie: a pair counts when its distance, 1 − correlation, is so small a share of that to the
//! `REACH`-th nearest image that chance would bring about one such pair in the whole set. If the images around one lie
//! in d dimensions, the share of its nearest neighbour is below t with a probability of (k − 1) t^(d/2); d is estimated as
//! Levina and Bickel (2004) do, averaged over images as `MacKay` and Ghahramani (2005) do, and without the nearest ones,
//! which may be copies.
//!
//! Evidence, on the 360 textile images (the tests repeat it): none of the 64,620 pairs of different images counts as near;
//! re-encoded, brighter and resized copies all do, as do copies cropped by 1 % at each edge, and of those cropped by 2 %
//! more than nine in ten. Of 2,624 electroluminescence images of solar cells (ELPV, Buerhop-Lutz et al. 2018) some
//! 28,000 pairs pass the tests of a pair; 61 count. Of 80 copies planted there (twenty cells as JPEG of quality 30, brighter,
//! with less contrast, at half the size) 77 count, and 40 other pairs.

use super::decode::ImageError;
use super::transform::{Geometry, Interpolation};
use crate::pixels::luma;
use crate::pixels::signature::{SIDE, Signature, relative_hashes};
use image::{Rgb, RgbImage};
use rayon::prelude::*;

/// Most bits of 63 in which the hashes of near-duplicates differ. Of different textile images the nearest differ in 14.
const MOST_BITS: u32 = 12;
/// Least correlation of the reduced pictures of near-duplicates. Of different textile images the highest is 0.26.
const LEAST_CORRELATION: f64 = 0.7;

/// The neighbour whose distance a pair's is compared with; half of the images in a small set.
const REACH: usize = 20;
/// The first of its neighbours by which it is judged how the images lie: nearer ones may be its copies.
const FIRST: usize = 5;
/// Sets with fewer images say too little about themselves: there the tests of a pair decide.
const FEWEST: usize = 2 * FIRST + 2;
/// Images by which the set is judged, whether or not they have a candidate.
const MEASURED: usize = 500;
/// Others that an image is compared with at most, by pixels: evenly spaced ones for how the set lies around it, and for its
/// pairs those whose low frequencies differ from the set's as its own do. Sets of up to so many images are searched whole.
const MOST_COMPARED: usize = 4096;
/// Smallest distance that is told from none: pixels are whole numbers.
const LEAST_DISTANCE: f64 = 1e-6;

/// How alike two images are.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Likeness {
    /// Bits in which the hashes differ, of 63.
    pub bits: u32,
    /// Correlation of the reduced pictures, from -1 to 1.
    pub correlation: f64,
    /// The pair's distance as a share of that to the `REACH`-th nearest image, in a large set of so many evenly spaced ones;
    /// none in a set of a few images.
    pub relative_distance: Option<f64>,
}

impl Likeness {
    /// Whether a person may take them for the same picture.
    pub fn is_near(self) -> bool {
        self.bits <= MOST_BITS && self.correlation >= LEAST_CORRELATION
    }
}

/// The signature of an image.
///
/// # Errors
/// When the image has no pixels.
pub fn signature(image: &RgbImage) -> Result<Signature, ImageError> {
    let geometry = Geometry::squash(SIDE, Interpolation::Bilinear);
    let small = geometry.resized(image, Rgb([0; 3]))?;
    let mut levels = small.pixels().map(|&pixel| luma(pixel) as u8);
    Ok(Signature::of_pixels(std::array::from_fn(|_| levels.next().unwrap_or_default())))
}

fn likeness(one: &Signature, other: &Signature) -> Likeness {
    let (bits, correlation) = (one.differing_bits(other), one.correlation(other));
    Likeness { bits, correlation, relative_distance: None }
}

/// Two images that are alike, by their positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Twins {
    /// The earlier one.
    pub first: usize,
    /// The later one.
    pub second: usize,
    /// How alike they are; none = the same bytes.
    pub likeness: Option<Likeness>,
}

/// Images that are alike.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resemblances {
    /// The pairs: from a search, the surest first; of a data set, copies first and then pairs across splits.
    pub twins: Vec<Twins>,
    /// Pairs that look alike, but no more than different images of this set do; an estimate in a large set of look-alikes.
    pub look_alikes: usize,
}

/// Finds the pairs of near images on so many threads. Every image is compared with every other by its hash, which takes a
/// tenth of a second for 10,000, and those that have a candidate by their pixels too, with thousands at most.
pub fn near_pairs(signatures: &[&Signature], threads: usize) -> Resemblances {
    SimilaritySearch::new(signatures, MOST_COMPARED).near_pairs(threads)
}

fn distance(correlation: f64) -> f64 {
    (1.0 - correlation).max(LEAST_DISTANCE)
}

/// A set of images in which near ones are sought.
struct SimilaritySearch<'a> {
    signatures: &'a [&'a Signature],
    /// Which neighbour's distance a pair's is compared with; none in a set of a few images.
    reach: Option<usize>,
    /// Others that an image is compared with at most.
    most: usize,
    /// The hash of each image against the set, if there are more than `most`.
    relative: Vec<u64>,
}

/// What lies around an image.
#[derive(Default)]
struct Neighborhood {
    /// How many images pass the tests of a pair with it.
    candidates: f64,
    /// The nearest of them, as many as can count.
    partners: Vec<(usize, Likeness)>,
    /// Distance to the `REACH`-th nearest image, if it was measured.
    reach: Option<f64>,
    /// Mean over its farther neighbours of what is 1 / (d / 2) for images that lie in d dimensions around it.
    flatness: f64,
}

impl<'a> SimilaritySearch<'a> {
    fn new(signatures: &'a [&'a Signature], most: usize) -> Self {
        let n = signatures.len();
        let relative = if n > most { relative_hashes(signatures) } else { Vec::new() };
        Self { signatures, reach: (n >= FEWEST).then(|| REACH.min(n / 2)), most, relative }
    }

    fn near_pairs(&self, threads: usize) -> Resemblances {
        let all = || (0..self.signatures.len()).into_par_iter().map(|index| self.around(index)).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        // Where no threads can be started, those of the process do it.
        let around: Vec<Neighborhood> = pool.map_or_else(|_| all(), |pool| pool.install(all));
        let candidates = (around.iter().map(|found| found.candidates).sum::<f64>() / 2.0) as usize;
        let most = self.most_relative(&around);
        let near = |(index, found): (usize, &Neighborhood)| -> Vec<(f64, Twins)> {
            // Each pair once, also where only one of its images has the other among its nearest.
            let has = |other: usize| around[other].partners.iter().any(|&(partner, _)| partner == index);
            let once = found.partners.iter().filter(|&&(other, _)| index < other || !has(other));
            let judged = once.map(|&(other, likeness)| {
                let reach = found.reach.zip(around[other].reach).map(|(a, b)| a.min(b));
                let apart = distance(likeness.correlation);
                let relative_distance = reach.map(|reach| apart / reach);
                let likeness = Some(Likeness { relative_distance, ..likeness });
                let pair = Twins { first: index.min(other), second: index.max(other), likeness };
                (relative_distance, (relative_distance.unwrap_or(apart), pair))
            });
            judged
                .filter(|(relative, _)| relative.is_none_or(|relative| relative < most))
                .map(|(_, pair)| pair)
                .collect()
        };
        let mut pairs: Vec<(f64, Twins)> = around.iter().enumerate().flat_map(near).collect();
        pairs.sort_by(|(a, one), (b, other)| {
            a.total_cmp(b).then((one.first, one.second).cmp(&(other.first, other.second)))
        });
        let look_alikes = candidates.saturating_sub(pairs.len());
        Resemblances { twins: pairs.into_iter().map(|(_, pair)| pair).collect(), look_alikes }
    }

    fn around(&self, index: usize) -> Neighborhood {
        let this = self.signatures[index];
        let alike: Vec<usize> = (0..self.signatures.len())
            .filter(|&other| this.differing_bits(self.signatures[other]) <= MOST_BITS && other != index)
            .collect();
        let whole = alike.len() <= self.most;
        let mut partners: Vec<(usize, Likeness)> = self
            .likeliest(index, alike)
            .into_iter()
            .map(|other| (other, likeness(this, self.signatures[other])))
            .filter(|(_, likeness)| likeness.is_near())
            .collect();
        let candidates = partners.len() as f64;
        partners.sort_by(|a, b| b.1.correlation.total_cmp(&a.1.correlation).then(a.0.cmp(&b.0)));
        let Some(reach) = self.reach else { return Neighborhood { candidates, partners, ..Neighborhood::default() } };
        // One beyond the reach is no nearer than the image there, so it never counts; nor are more copies needed to find
        // each of them beside another.
        partners.truncate(reach);
        if partners.is_empty() && !index.is_multiple_of(self.signatures.len().div_ceil(MEASURED)) {
            return Neighborhood::default();
        }
        let others = self.sample().filter(|&other| other != index);
        let measured: Vec<Likeness> = others.map(|other| likeness(this, self.signatures[other])).collect();
        let near = || measured.iter().filter(|likeness| likeness.is_near()).count() as f64 * self.images_per_sampled();
        let candidates = if whole { candidates } else { near().round() };
        let mut distances: Vec<f64> = measured.iter().map(|likeness| distance(likeness.correlation)).collect();
        let (nearer, &mut farthest, _) = distances.select_nth_unstable_by(reach - 1, f64::total_cmp);
        nearer.sort_by(f64::total_cmp);
        let first = FIRST.min(reach - 1);
        let ladder = nearer[first - 1..].iter().copied().chain([farthest]).collect::<Vec<f64>>();
        let steps = ladder.windows(2).zip(first..).map(|(pair, rank)| rank as f64 * (pair[1] / pair[0]).ln());
        let flatness = steps.sum::<f64>() / (reach - first) as f64;
        Neighborhood { candidates, partners, reach: Some(farthest), flatness }
    }

    /// Of the images that are like one by their hash the likeliest to be near it, as many as it is compared with.
    fn likeliest(&self, index: usize, mut alike: Vec<usize>) -> Vec<usize> {
        if alike.len() > self.most {
            let bits = |other: usize| (self.relative[index] ^ self.relative[other]).count_ones();
            alike.select_nth_unstable_by_key(self.most, |&other| (bits(other), other));
            alike.truncate(self.most);
        }
        alike
    }

    /// Evenly spaced images, as many as one is compared with; all of a set that has no more.
    fn sample(&self) -> impl Iterator<Item = usize> {
        let (n, sampled) = (self.signatures.len(), self.signatures.len().min(self.most));
        (0..sampled).map(move |at| at * n / sampled)
    }

    /// How many images of the set each of the sample stands for.
    fn images_per_sampled(&self) -> f64 {
        (self.signatures.len() as f64 / self.most as f64).max(1.0)
    }

    /// The relative distance below which chance would bring about one pair in the set. As many times more images than of the
    /// sample lie within the reach as there are in the set.
    fn most_relative(&self, around: &[Neighborhood]) -> f64 {
        let Some(reach) = self.reach else { return 1.0 };
        // Evenly spread over the set: images that look like others are not typical of it.
        let measured = || around.iter().step_by(around.len().div_ceil(MEASURED));
        let flatness = measured().map(|found| found.flatness).sum::<f64>() / measured().count().max(1) as f64;
        let within = reach as f64 * self.images_per_sampled() - 1.0;
        (-flatness * (within * around.len() as f64).ln()).exp()
    }
}

#[cfg(test)]
#[path = "similar_tests.rs"]
mod tests;
