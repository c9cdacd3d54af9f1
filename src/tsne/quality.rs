//! How good a map is: whether neighbours on it are neighbours among the features, and how well it separates classes.

use crate::error::Result;
use crate::linalg::distances::map_squared_distances;
use crate::linalg::neighbors::{Metric, nearest};
use crate::linalg::{Matrix, tally};

/// How well a map preserves neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighborhoods {
    /// Neighbours a point that were compared: as asked for, or the most for which trustworthiness is defined.
    pub k: usize,
    /// T(k), 1 when all neighbours on the map are near among the features too, as scikit-learn's (Venna and Kaski 2001).
    pub trustworthiness: f64,
    /// Mean share of a point's `k` nearest features that are among its `k` nearest on the map.
    pub preservation: f64,
}

/// Compares the `k` nearest neighbours (12 is usual) on the map with those of the features; none for fewer than four
/// points. All distances are computed: O(N²) time, O(N) memory.
///
/// T(k) = 1 − 2 / (N k (2N − 3k − 1)) Σᵢ Σⱼ max(0, r(i, j) − k), over the k nearest j on the map, where r(i, j) is the
/// rank of j among the features nearest to i.
///
/// # Errors
/// When features and map differ in number.
pub fn neighborhoods(features: Matrix<'_>, map: &[[f64; 2]], k: usize) -> Result<Option<Neighborhoods>> {
    let n = features.rows();
    // Beyond half of the points the formula's normalisation no longer holds.
    let k = k.min(n.saturating_sub(1) / 2);
    if k == 0 || n < 4 {
        return Ok(None);
    }
    let flat = flat(map);
    let map = Matrix::new(&flat, 2);
    let found = nearest(map, map, k, Metric::Euclidean, true)?;
    let excess = map_squared_distances(features, |i, distances| {
        let rank = |&j: &u32| {
            let (j, limit) = (j as usize, distances[j as usize]);
            // Nearer ones, and as near ones that come before; the point itself does not count.
            let nearer = |(other, &d): (usize, &f32)| other != i && (d < limit || (d == limit && other < j));
            1 + distances.iter().enumerate().filter(|&other| nearer(other)).count()
        };
        let ranks: Vec<usize> = found.of(i).iter().map(rank).collect();
        let kept = ranks.iter().filter(|&&rank| rank <= k).count();
        (ranks.iter().map(|rank| rank.saturating_sub(k)).sum::<usize>(), kept)
    })?;
    let (strangers, kept) = excess.iter().fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    let (n, neighbors) = (n as f64, k as f64);
    let trustworthiness = 1.0 - 2.0 * strangers as f64 / (n * neighbors * (2.0 * n - 3.0 * neighbors - 1.0));
    Ok(Some(Neighborhoods { k, trustworthiness, preservation: kept as f64 / (n * neighbors) }))
}

/// How well classes are separated.
#[derive(Debug, Clone, PartialEq)]
pub struct Silhouettes {
    /// Mean over all points, from -1 (among another class) to 1 (classes far apart).
    pub mean: f64,
    /// Mean over the points of each class; none for a class without points.
    pub per_class: Vec<Option<f64>>,
}

/// Silhouettes (Rousseeuw 1987) of labelled points, labels below `classes`: (b − a) / max(a, b) with a the mean distance
/// to the other points of the class and b that to the nearest other class; 0 for the only point of a class. None with
/// fewer than two classes present. Equals scikit-learn's `silhouette_samples` within rounding.
///
/// # Errors
/// When the matrix product refuses its shapes: a bug.
pub fn silhouettes(points: Matrix<'_>, labels: &[usize], classes: usize) -> Result<Option<Silhouettes>> {
    let counts = tally(labels.iter().copied(), classes);
    if counts.iter().filter(|&&count| count > 0).count() < 2 {
        return Ok(None);
    }
    let samples = map_squared_distances(points, |i, distances| {
        let mut sums = vec![0f64; classes];
        distances.iter().zip(labels).for_each(|(&d, &label)| sums[label] += f64::from(d).sqrt());
        silhouette(&sums, &counts, labels[i])
    })?;
    let mut sums = vec![0f64; classes];
    samples.iter().zip(labels).for_each(|(sample, &label)| sums[label] += sample);
    let per_class = sums.iter().zip(&counts).map(|(sum, &count)| (count > 0).then(|| sum / count as f64)).collect();
    Ok(Some(Silhouettes { mean: sums.iter().sum::<f64>() / labels.len() as f64, per_class }))
}

/// Silhouettes on the map itself; see [`silhouettes`].
///
/// # Errors
/// As [`silhouettes`].
pub fn map_silhouettes(map: &[[f64; 2]], labels: &[usize], classes: usize) -> Result<Option<Silhouettes>> {
    silhouettes(Matrix::new(&flat(map), 2), labels, classes)
}

/// The silhouette of one point of class `own` from its summed distances to each class.
fn silhouette(sums: &[f64], counts: &[usize], own: usize) -> f64 {
    if counts[own] == 1 {
        return 0.0;
    }
    let within = sums[own] / (counts[own] - 1) as f64;
    let others = (0..sums.len()).filter(|&class| class != own && counts[class] > 0);
    let nearest = others.map(|class| sums[class] / counts[class] as f64).fold(f64::INFINITY, f64::min);
    let larger = within.max(nearest);
    if larger > 0.0 { (nearest - within) / larger } else { 0.0 }
}

fn flat(map: &[[f64; 2]]) -> Vec<f32> {
    map.iter().flatten().map(|&value| value as f32).collect()
}
