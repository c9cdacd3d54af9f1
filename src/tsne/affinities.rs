//! How similar two points are in feature space: the sparse joint probabilities P.
//!
//! van der Maaten and Hinton 2008, sections 2 and 3.1; restricted to near neighbours as in van der Maaten 2014.

use crate::linalg::neighbors::Neighbors;
use rayon::prelude::*;

/// Points of one task: a constant, so that the work is cut up alike for any number of threads.
const BLOCK: usize = 64;
/// Tolerance of the entropy, in nats.
const TOLERANCE: f64 = 1e-5;
/// Steps after which a bandwidth is taken as it is: with many equal distances no bandwidth has the entropy.
const STEPS: usize = 100;

/// A symmetric sparse matrix of joint probabilities with sum 1, by rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Affinities {
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Affinities {
    /// P of points with these neighbours (squared distances, a point not its own neighbour): p(j|i) with the
    /// bandwidth that gives row i the wanted perplexity, then p(i,j) = (p(j|i) + p(i|j)) / 2N.
    pub fn new(neighbors: &Neighbors, perplexity: f64) -> Self {
        let k = neighbors.k;
        let mut conditional = vec![0f64; neighbors.distances.len()];
        let rows = conditional.par_chunks_mut(k.max(1)).zip(neighbors.distances.par_chunks(k.max(1)));
        rows.with_min_len(BLOCK).for_each(|(row, distances)| conditional_row(distances, perplexity.ln(), row));
        Self::joint(neighbors, &conditional)
    }

    /// The neighbours of point `i` in P, ascending, and their probabilities.
    pub fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let row = self.starts[i]..self.starts[i + 1];
        (&self.columns[row.clone()], &self.values[row])
    }

    /// (C + Cᵀ) / 2N of the conditional probabilities C.
    fn joint(neighbors: &Neighbors, conditional: &[f64]) -> Self {
        let n = conditional.len() / neighbors.k.max(1);
        let mut lists: Vec<Vec<(u32, f64)>> = vec![Vec::with_capacity(2 * neighbors.k); n];
        for i in 0..n {
            for (at, &j) in neighbors.of(i).iter().enumerate() {
                let p = conditional[i * neighbors.k + at] / (2 * n) as f64;
                lists[i].push((j, p));
                lists[j as usize].push((i as u32, p));
            }
        }
        lists.par_iter_mut().with_min_len(BLOCK).for_each(|list| {
            list.sort_unstable_by_key(|&(j, _)| j);
            list.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 += next.1;
                }
                same
            });
        });
        let mut starts = vec![0];
        starts.extend(lists.iter().scan(0, |end, list| {
            *end += list.len();
            Some(*end)
        }));
        let (columns, values) = lists.into_iter().flatten().map(|(j, p)| (j, p as f32)).unzip();
        Self { starts, columns, values }
    }
}

/// Fills `row` with p(j|i), Gaussian in the distance, with entropy `wanted`.
///
/// Newton's method on ln β within a bracket that shrinks as in bisection; β = 1 / 2σ².
fn conditional_row(distances: &[f32], wanted: f64, row: &mut [f64]) {
    let nearest = f64::from(distances.iter().copied().fold(f32::INFINITY, f32::min));
    let mean = distances.iter().map(|&d| f64::from(d) - nearest).sum::<f64>() / distances.len() as f64;
    if !(mean > 0.0 && mean.is_finite()) {
        row.fill(1.0 / distances.len() as f64);
        return;
    }
    // In units of the mean, any scale of features is alike.
    let scaled = |d: f32| (f64::from(d) - nearest) / mean;
    let (mut low, mut high) = (-60f64, 60f64);
    let mut log_beta = 0f64;
    for _ in 0..STEPS {
        let beta = log_beta.exp();
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for (p, &distance) in row.iter_mut().zip(distances) {
            let d = scaled(distance);
            *p = (-beta * d).exp();
            sum += *p;
            first += *p * d;
            second += *p * d * d;
        }
        let average = first / sum;
        row.iter_mut().for_each(|p| *p /= sum);
        let entropy = sum.ln() + beta * average;
        if (entropy - wanted).abs() <= TOLERANCE {
            break;
        }
        if entropy > wanted {
            low = log_beta;
        } else {
            high = log_beta;
        }
        let slope = -beta * beta * (second / sum - average * average);
        let newton = log_beta - (entropy - wanted) / slope;
        log_beta = if newton > low && newton < high { newton } else { low.midpoint(high) };
    }
}
