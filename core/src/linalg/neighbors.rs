//! Exact nearest neighbours by blocked matrix products.
//!
//! A product in f32 finds the candidates: with the error bound of its sums, every vector that could be among the `k`
//! nearest is kept. Their distances are then computed in f64 from the vectors themselves, so the result is that of
//! the plain double loop: duplicates are exactly 0 apart, and ties go to the smaller index.

use super::Matrix;
use crate::error::{Error, Result};
use crate::kernels::gemm::{Mat, matmul};
use crate::kernels::simd;
use rayon::prelude::*;
use std::borrow::Cow;

/// Queries of one task. A constant, so that the work is cut up alike for any number of threads.
const QUERY_BLOCK: usize = 128;
/// Base vectors of one matrix product: with the queries, its result stays in the second-level cache.
const BASE_BLOCK: usize = 512;
/// Keys looked at together before a candidate is sought among them.
const GROUP: usize = 32;

/// How near two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Squared Euclidean distance; the smallest is nearest.
    Euclidean,
    /// Cosine similarity; the largest is nearest. A zero vector has similarity 0 to everything.
    Cosine,
}

/// The nearest base vectors of each query, nearest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbors {
    /// Neighbours per query: as requested, or all there are.
    pub k: usize,
    /// Row numbers of the base, `k` per query.
    pub indices: Vec<u32>,
    /// Squared Euclidean distances or cosine similarities, in step with `indices`.
    pub distances: Vec<f32>,
}

impl Neighbors {
    /// The neighbours of query `i`.
    pub fn of(&self, i: usize) -> &[u32] {
        &self.indices[i * self.k..(i + 1) * self.k]
    }

    /// The distances or similarities of query `i`'s neighbours.
    pub fn distances_of(&self, i: usize) -> &[f32] {
        &self.distances[i * self.k..(i + 1) * self.k]
    }
}

/// The `k` nearest rows of `base` for each row of `queries`, as [`Base::nearest`].
///
/// # Errors
/// When the vectors differ in length.
pub fn nearest(
    queries: Matrix<'_>,
    base: Matrix<'_>,
    k: usize,
    metric: Metric,
    exclude_self: bool,
) -> Result<Neighbors> {
    Base::new(base.values(), base.cols(), metric).nearest(queries, k, exclude_self)
}

/// Vectors among which neighbours are sought, prepared once for any number of searches.
#[derive(Debug, Clone, PartialEq)]
pub struct Base<'a> {
    values: Cow<'a, [f32]>,
    cols: usize,
    metric: Metric,
    centre: Vec<f64>,
    prepared: NormalizedRows,
}

impl<'a> Base<'a> {
    /// Rows of `cols` values.
    pub fn new(values: impl Into<Cow<'a, [f32]>>, cols: usize, metric: Metric) -> Self {
        let values = values.into();
        let matrix = Matrix::new(&values, cols);
        let centre = matrix.means();
        let prepared = NormalizedRows::new(matrix, metric, &centre);
        Self { values, cols, metric, centre, prepared }
    }

    /// The rows.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.cols)
    }

    /// The `k` nearest rows for each row of `queries`, exact, ties to the smaller index. With `exclude_self` row i is not a
    /// neighbour of query i, for queries that are these rows. The same for any number of threads.
    ///
    /// # Errors
    /// When the vectors differ in length.
    pub fn nearest(&self, queries: Matrix<'_>, k: usize, exclude_self: bool) -> Result<Neighbors> {
        let (width, rows) = (queries.cols(), self.matrix().rows());
        if width != self.cols {
            return Err(Error::usage(format!("vectors of {width} and of {} values have no distance", self.cols)));
        }
        let k = k.min(rows.saturating_sub(usize::from(exclude_self)));
        if k == 0 {
            return Ok(Neighbors { k, indices: Vec::new(), distances: Vec::new() });
        }
        let search = Search {
            prepared_queries: NormalizedRows::new(queries, self.metric, &self.centre),
            error: (self.cols + 16) as f32 * (f32::EPSILON / 2.0),
            base: self,
            queries,
            k,
            exclude_self,
        };
        let blocks: Vec<usize> = (0..queries.rows()).step_by(QUERY_BLOCK).collect();
        let found: Vec<Vec<(u32, f32)>> = blocks.par_iter().map(|&first| search.block(first)).collect::<Result<_>>()?;
        let (indices, distances) = found.into_iter().flatten().unzip();
        Ok(Neighbors { k, indices, distances })
    }
}

/// Vectors as the products take them: centred (Euclidean) or scaled to length 1 (cosine), so that f32
/// loses as little as possible.
#[derive(Debug, Clone, PartialEq)]
struct NormalizedRows {
    values: Vec<f32>,
    square_norms: Vec<f32>,
}

impl NormalizedRows {
    fn new(matrix: Matrix<'_>, metric: Metric, centre: &[f64]) -> Self {
        let mut values = vec![0f32; matrix.values().len()];
        let square_norms = values
            .par_chunks_mut(matrix.cols())
            .zip(matrix.values().par_chunks(matrix.cols()))
            .map(|(out, row)| {
                simd(|| match metric {
                    Metric::Euclidean => {
                        out.iter_mut().zip(row).zip(centre).for_each(|((o, &x), c)| *o = (f64::from(x) - c) as f32);
                    }
                    Metric::Cosine => {
                        let scale = dot(row, row).sqrt().recip();
                        let scale = if scale.is_finite() { scale } else { 0.0 };
                        out.iter_mut().zip(row).for_each(|(o, &x)| *o = (f64::from(x) * scale) as f32);
                    }
                });
                dot(out, out) as f32
            })
            .collect();
        Self { values, square_norms }
    }
}

struct Search<'a> {
    queries: Matrix<'a>,
    base: &'a Base<'a>,
    prepared_queries: NormalizedRows,
    k: usize,
    exclude_self: bool,
    /// Relative bound on the error of a key: its sum of `cols` products, its preparation and its norms.
    error: f32,
}

impl Search<'_> {
    /// The neighbours of the queries from `first` on, query after query.
    fn block(&self, first: usize) -> Result<Vec<(u32, f32)>> {
        let (cols, rows) = (self.base.cols, self.base.matrix().rows());
        let count = QUERY_BLOCK.min(self.queries.rows() - first);
        let queries = Mat::new(&self.prepared_queries.values[first * cols..(first + count) * cols], count, cols);
        let mut candidates: Vec<Candidates> = (0..count).map(|_| Candidates::new(self.k)).collect();
        let mut products = vec![0f32; count * BASE_BLOCK];
        for start in (0..rows).step_by(BASE_BLOCK) {
            let width = BASE_BLOCK.min(rows - start);
            let block = &self.base.prepared.values[start * cols..(start + width) * cols];
            matmul(queries, Mat::new(block, width, cols).t(), 1.0, 0.0, &mut products, BASE_BLOCK)?;
            for (row, candidates) in candidates.iter_mut().enumerate() {
                self.collect(first + row, start, &products[row * BASE_BLOCK..][..width], candidates);
            }
        }
        let chosen = candidates.into_iter().enumerate();
        Ok(chosen.flat_map(|(row, candidates)| self.choose(first + row, candidates)).collect())
    }

    /// Offers the base vectors from `start` on to the candidates of one query.
    fn collect(&self, query: usize, start: usize, products: &[f32], candidates: &mut Candidates) {
        let norms = &self.base.prepared.square_norms[start..start + products.len()];
        let query_norm = self.prepared_queries.square_norms[query];
        // A key is the squared distance less what is the same for all, or minus twice the similarity.
        let weight = if self.base.metric == Metric::Euclidean { 1.0 } else { 0.0 };
        let bounds = |product: f32, norm: f32| {
            let key = weight * norm - 2.0 * product;
            let error = self.error * (query_norm + norm);
            (key - error, key + error)
        };
        let skipped = if self.exclude_self { query } else { usize::MAX };
        simd(|| {
            for (group, (products, norms)) in products.chunks(GROUP).zip(norms.chunks(GROUP)).enumerate() {
                let limit = candidates.limit;
                // NaN, from values whose squares overflow, is a candidate: only the exact distance decides.
                let all_far = products.iter().zip(norms).fold(true, |far, (&p, &n)| far & (bounds(p, n).0 > limit));
                if all_far {
                    continue;
                }
                for (lane, (&product, &norm)) in products.iter().zip(norms).enumerate() {
                    let index = start + group * GROUP + lane;
                    let (lower, upper) = bounds(product, norm);
                    if index != skipped {
                        candidates.offer(Candidate { lower, upper, index: index as u32 });
                    }
                }
            }
        });
    }

    /// The `k` nearest candidates by their distance in f64.
    fn choose(&self, query: usize, candidates: Candidates) -> impl Iterator<Item = (u32, f32)> {
        let query = self.queries.row(query);
        let query_norm = dot(query, query).sqrt();
        let mut exact: Vec<(f64, u32)> = candidates
            .finish()
            .into_iter()
            .map(|index| {
                let row = self.base.matrix().row(index as usize);
                let order = match self.base.metric {
                    Metric::Euclidean => squared_distance(query, row),
                    Metric::Cosine => -cosine(dot(query, row), query_norm * dot(row, row).sqrt()),
                };
                (order, index)
            })
            .collect();
        exact.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let sign = if self.base.metric == Metric::Euclidean { 1.0 } else { -1.0 };
        exact.into_iter().take(self.k).map(move |(order, index)| (index, (sign * order) as f32))
    }
}

/// Bounds on one base vector's key.
#[derive(Clone, Copy)]
struct Candidate {
    lower: f32,
    upper: f32,
    index: u32,
}

/// What may be among the `k` nearest so far.
struct Candidates {
    k: usize,
    kept: Vec<Candidate>,
    /// The `k`-th smallest upper bound seen: whatever lies above it for certain is out.
    limit: f32,
    /// Length at which `kept` is thinned out.
    full: usize,
}

impl Candidates {
    fn new(k: usize) -> Self {
        let full = 2 * k + GROUP;
        Self { k, kept: Vec::with_capacity(full), limit: f32::INFINITY, full }
    }

    fn offer(&mut self, candidate: Candidate) {
        if candidate.lower > self.limit {
            return;
        }
        self.kept.push(candidate);
        if self.kept.len() >= self.full {
            self.thin();
            // Many ties: thin out less often, so that the work stays proportional to the candidates.
            self.full = self.full.max(2 * self.kept.len());
        }
    }

    fn thin(&mut self) {
        if self.kept.len() > self.k {
            let (_, nth, _) = self.kept.select_nth_unstable_by(self.k - 1, |a, b| a.upper.total_cmp(&b.upper));
            let limit = if nth.upper.is_nan() { f32::INFINITY } else { nth.upper };
            self.limit = self.limit.min(limit);
            let limit = self.limit;
            self.kept.retain(|candidate| candidate.lower.is_nan() || candidate.lower <= limit);
        }
    }

    fn finish(mut self) -> Vec<u32> {
        self.thin();
        self.kept.iter().map(|candidate| candidate.index).collect()
    }
}

/// Sum of `f(a, b)` over two vectors in f64, in a fixed order that vectorises.
#[inline(always)]
fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0f64; LANES];
    let (a_groups, b_groups) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = a_groups.remainder().iter().zip(b_groups.remainder());
    let tail: f64 = tail.map(|(&x, &y)| f(f64::from(x), f64::from(y))).sum();
    for (a, b) in a_groups.zip(b_groups) {
        for lane in 0..LANES {
            lanes[lane] += f(f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    lanes.iter().sum::<f64>() + tail
}

/// The squared Euclidean distance of two vectors, in f64 and in a fixed order.
pub fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    simd(|| sum_pairs(a, b, |x, y| (x - y) * (x - y)))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    simd(|| sum_pairs(a, b, |x, y| x * y))
}

fn cosine(product: f64, norms: f64) -> f64 {
    if norms > 0.0 { (product / norms).clamp(-1.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
#[path = "neighbors_tests.rs"]
mod tests;
