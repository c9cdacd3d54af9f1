//! `PatchCore` (Roth et al. 2022): what sound parts look like, patch by patch, and how far an image is from that.
//!
//! A memory bank holds a greedy coreset of the patches of sound images. A patch is as far from them as from its nearest one
//! in the bank; an image as its farthest patch, weighed by how alone the patch's nearest one is among its own neighbours.

use crate::error::{Error, Result};
use crate::kernels::gemm::{Mat, matmul};
use crate::linalg::Matrix;
use crate::linalg::neighbors::{Base, Metric, squared_distance};
use crate::rng::{Purpose, Stream};
use rayon::prelude::*;

/// Neighbours of a bank's patch that weigh a score, `b` in the paper, as in its code.
const NEIGHBORS: usize = 9;
/// Values of a patch after the random projection, as in the paper's code: what the coreset is chosen by.
pub const PROJECTED: usize = 128;
/// Points of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 1024;

/// A random map to `PROJECTED` values that nearly keeps distances (Johnson and Lindenstrauss 1984); nothing is projected
/// that has no more.
#[derive(Debug, Clone)]
pub struct Projection {
    /// Row-major (`PROJECTED`, width); empty for the identity.
    matrix: Vec<f32>,
    width: usize,
}

impl Projection {
    /// The projection of patches of `width` values that a seed draws.
    pub fn new(width: usize, seed: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Coreset, &[0]);
        let scale = 1.0 / (PROJECTED as f64).sqrt();
        let values = if width > PROJECTED { PROJECTED * width } else { 0 };
        Self { matrix: (0..values).map(|_| (stream.normal() * scale) as f32).collect(), width }
    }

    /// Values of a patch afterwards.
    pub fn projected(&self) -> usize {
        self.width.min(PROJECTED)
    }

    /// Patches (n, width) to (n, [`Projection::projected`]).
    ///
    /// # Errors
    /// When the patches have another width.
    pub fn apply(&self, patches: Matrix<'_>) -> Result<Vec<f32>> {
        if self.matrix.is_empty() {
            return Ok(patches.values().to_vec());
        }
        let mut out = vec![0f32; patches.rows() * PROJECTED];
        out.par_chunks_mut(BLOCK * PROJECTED).zip(patches.values().par_chunks(BLOCK * self.width)).try_for_each(
            |(out, rows)| {
                let map = Mat::new(&self.matrix, PROJECTED, self.width).t();
                matmul(Mat::new(rows, rows.len() / self.width, self.width), map, 1.0, 0.0, out, PROJECTED)
            },
        )?;
        Ok(out)
    }
}

/// The point that a coreset of n points begins with, drawn by a seed.
pub fn first_point(n: usize, seed: u64) -> usize {
    Stream::new(seed, Purpose::Coreset, &[1]).below(n as u64) as usize
}

/// Which of the `n` patches of an image a coreset is chosen among, ascending: an even share of them, at least one, that a
/// seed draws.
pub fn draw(n: usize, share: f64, seed: u64, image: usize) -> Vec<usize> {
    let mut drawn: Vec<usize> = (0..n).collect();
    if share < 1.0 {
        Stream::new(seed, Purpose::Coreset, &[2, image as u64]).shuffle(&mut drawn);
        drawn.truncate(((n as f64 * share) as usize).max(1));
        drawn.sort_unstable();
    }
    drawn
}

/// The greedy coreset (k-centre, Sener and Savarese 2018): beginning with the point `first`, always the point that is
/// farthest from all those chosen before, the first among equals, `count` in all.
pub fn coreset(points: Matrix<'_>, count: usize, first: usize, mut watch: impl FnMut(usize)) -> Vec<usize> {
    let (n, width) = (points.rows(), points.cols());
    let count = count.min(n);
    let mut nearest = vec![f64::INFINITY; n];
    let mut chosen = Vec::with_capacity(count);
    let mut next = first.min(n.saturating_sub(1));
    while chosen.len() < count {
        chosen.push(next);
        watch(chosen.len());
        let center = points.row(next);
        let farthest = nearest
            .par_chunks_mut(BLOCK)
            .zip(points.values().par_chunks(BLOCK * width))
            .enumerate()
            .map(|(block, (nearest, rows))| {
                let mut best = (f64::NEG_INFINITY, 0);
                for (i, (nearest, row)) in nearest.iter_mut().zip(rows.chunks_exact(width)).enumerate() {
                    *nearest = nearest.min(squared_distance(center, row));
                    if *nearest > best.0 {
                        best = (*nearest, block * BLOCK + i);
                    }
                }
                best
            })
            .reduce(
                || (f64::NEG_INFINITY, usize::MAX),
                |a, b| if b.0 > a.0 || b.0 == a.0 && b.1 < a.1 { b } else { a },
            );
        next = farthest.1;
        if farthest.0 <= 0.0 {
            // Only copies of what was chosen are left.
            break;
        }
    }
    chosen
}

/// How far an image is from sound ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Strangeness {
    /// The score of the image.
    pub score: f32,
    /// The distance of each patch to the nearest one in the bank.
    pub patches: Vec<f32>,
    /// Which of them is farthest: alone it has the image's score.
    pub farthest: usize,
}

impl Strangeness {
    /// Adds further patches of the image, and tells the number of the patch that is farthest now: the first among equals.
    pub fn add(&mut self, others: Self) -> usize {
        let [mine, other] = [&*self, &others].map(|part| part.patches[part.farthest]);
        // One that is no number makes the score none.
        if other > mine || (other.is_nan() && !mine.is_nan()) {
            (self.score, self.farthest) = (others.score, self.patches.len() + others.farthest);
        }
        self.patches.extend(others.patches);
        self.farthest
    }
}

/// Patches of sound images.
#[derive(Debug, Clone)]
pub struct MemoryBank {
    base: Base<'static>,
}

impl MemoryBank {
    /// A bank of patches (n, `width`), row-major.
    pub fn new(values: Vec<f32>, width: usize) -> Self {
        Self { base: Base::new(values, width, Metric::Euclidean) }
    }

    /// The patches.
    pub fn patches(&self) -> Matrix<'_> {
        self.base.matrix()
    }

    /// How far an image with patches (n, width) is from the bank.
    ///
    /// # Errors
    /// A usage error when the patches have another width, or there are none here or there.
    pub fn compare(&self, patches: Matrix<'_>) -> Result<Strangeness> {
        let bank = self.patches();
        let found = self.base.nearest(patches, 1, false)?;
        let distances: Vec<f32> = found.distances.iter().map(|squared| squared.sqrt()).collect();
        let farthest = (1..distances.len()).fold(0, |best, i| {
            // A NaN among them makes the score NaN.
            if distances[i] > distances[best] || distances[i].is_nan() { i } else { best }
        });
        let (Some(&distance), Some(&like)) = (distances.get(farthest), found.indices.get(farthest)) else {
            return Err(Error::usage("there are no patches to compare"));
        };
        let (patch, like) = (patches.row(farthest), Matrix::new(bank.row(like as usize), bank.cols()));
        let around = self.base.nearest(like, NEIGHBORS, false)?;
        let near: Vec<f64> =
            around.of(0).iter().map(|&i| squared_distance(patch, bank.row(i as usize)).sqrt()).collect();
        let largest = near.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = near.iter().map(|distance| (distance - largest).exp()).sum();
        let share = (near[0] - largest).exp() / total;
        // Of one patch nothing is around, and the weight would be 0 whatever the distance.
        let weight = if near.len() > 1 { 1.0 - share } else { 1.0 };
        Ok(Strangeness { score: (weight * f64::from(distance)) as f32, patches: distances, farthest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, cols: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Init, &[]);
        (0..rows * cols).map(|_| stream.normal() as f32).collect()
    }

    #[test]
    fn the_coreset_takes_the_farthest_first_and_no_copies() {
        let points = [0.0f32, 0.1, 10.0, 10.0, 4.0, 0.0];
        assert_eq!(coreset(Matrix::new(&points, 1), 3, 0, |_| ()), [0, 2, 4]);
        assert_eq!(coreset(Matrix::new(&points, 1), 9, 0, |_| ()), [0, 2, 4, 1], "copies add nothing");
        assert!(coreset(Matrix::new(&[], 3), 5, 0, |_| ()).is_empty());
    }

    #[test]
    fn an_even_share_of_patches_is_drawn() {
        assert_eq!(draw(5, 1.0, 0, 0), [0, 1, 2, 3, 4]);
        let drawn = draw(1000, 0.1, 7, 3);
        assert!(drawn.len() == 100 && drawn.is_sorted_by(|a, b| a < b) && drawn[99] < 1000, "{drawn:?}");
        assert!(drawn == draw(1000, 0.1, 7, 3) && drawn != draw(1000, 0.1, 7, 4) && drawn != draw(1000, 0.1, 8, 3));
        assert_eq!(draw(3, 1e-9, 0, 0).len(), 1);
    }

    #[test]
    fn what_is_no_number_is_not_sound() {
        let bank = MemoryBank::new(vec![0.0, 1.0, 2.0], 1);
        for patches in [[0.5, f32::NAN, 9.0], [f32::NAN, 0.5, 9.0]] {
            let found = bank.compare(Matrix::new(&patches, 1));
            assert!(found.is_err() || found.is_ok_and(|found| found.score.is_nan()), "{patches:?}");
        }
    }

    #[test]
    fn threads_change_nothing() {
        let points = random(5000, 7, 1);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| coreset(Matrix::new(&points, 7), 40, 3, |_| ()))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn projections_keep_distances_nearly_and_narrow_patches_wholly() {
        let points = random(20, 600, 2);
        let projected = Projection::new(600, 0).apply(Matrix::new(&points, 600)).unwrap();
        let (before, after) = (Matrix::new(&points, 600), Matrix::new(&projected, PROJECTED));
        for i in 1..20 {
            let ratio = squared_distance(after.row(0), after.row(i)) / squared_distance(before.row(0), before.row(i));
            assert!((0.6..1.5).contains(&ratio), "{ratio}");
        }
        let narrow = random(3, 5, 3);
        assert_eq!(Projection::new(5, 0).apply(Matrix::new(&narrow, 5)).unwrap(), narrow);
    }

    #[test]
    fn an_image_is_as_strange_as_its_strangest_patch() {
        let bank = MemoryBank::new(vec![0.0, 1.0], 1);
        let found = bank.compare(Matrix::new(&[0.0, 4.0, 0.5], 1)).unwrap();
        assert_eq!(found.patches, [0.0, 3.0, 0.5]);
        assert_eq!(bank.compare(Matrix::new(&[4.0], 1)).unwrap().score, found.score, "its farthest patch alone");
        for cut in 1..4 {
            let patches = [0.0, 4.0, 0.5, 4.0];
            let whole = bank.compare(Matrix::new(&patches, 1)).unwrap();
            let mut parts = bank.compare(Matrix::new(&patches[..cut], 1)).unwrap();
            assert_eq!(parts.add(bank.compare(Matrix::new(&patches[cut..], 1)).unwrap()), 1);
            assert_eq!(parts, whole, "in parts of {cut} and the others");
        }
        // The nearest one is at 3, the other at 4: a share of 1 / (1 + e).
        let weight = 1.0 - 1.0 / (1.0 + 1f64.exp());
        assert!((f64::from(found.score) - 3.0 * weight).abs() < 1e-6, "{found:?}");
        assert!((MemoryBank::new(vec![1.0], 1).compare(Matrix::new(&[4.0], 1)).unwrap().score - 3.0).abs() < 1e-6);
        assert!(bank.compare(Matrix::new(&[], 1)).is_err());
        assert!(bank.compare(Matrix::new(&[1.0, 2.0], 2)).is_err());
    }
}
