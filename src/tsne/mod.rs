//! t-SNE: a map of the features in two dimensions that keeps neighbours together (van der Maaten and Hinton 2008).
//!
//! Neighbours and their affinities ([`affinities`]), a start on the principal components ([`pca`]), descent
//! ([`optimize`]) with the repulsion summed exactly ([`exact`]) or on a grid
//! ([`interpolation`]), and how good the map is ([`quality`]). Bit-identical for a seed and any number of threads;
//! the caller installs the thread pool.

pub mod affinities;
pub mod exact;
pub mod gradient;
pub mod interpolation;
pub mod optimize;
pub mod pca;
pub mod quality;

pub use optimize::DescentObserver;

use crate::config::{TsneMethod, TsneSettings};
use crate::error::{DataError, Error, Result};
use crate::linalg::Matrix;
use crate::linalg::neighbors::{Metric, nearest};
use crate::rng::{Purpose, Stream};
use crate::system::shown::counted;
use affinities::Affinities;
use exact::ExactRepulsion;
use gradient::{Repulsion, divergence};
use interpolation::GridRepulsion;
use optimize::{EXAGGERATION, descend, round};

/// Points up to which the plain sum over all pairs is the fastest; then the grid is. At 2,000 a quad tree (Barnes and Hut 1986)
/// was slower than both.
const EXACT_UP_TO: usize = 1500;
/// Smallest step of the descent chosen by itself.
const LEAST_RATE: f64 = 50.0;
/// Standard deviation of the start on its first axis.
const START: f64 = 1e-4;
/// Points up to which two descents are made and the lower one kept. Single ones scatter by 2 % in KL over local minima,
/// whatever makes them; of two, the lower is rarely a poor one, and up to here both take seconds.
const TWICE_UP_TO: usize = 5000;
/// Standard deviation of the noise that sets the start of the second descent apart from the first's.
const SHAKE: f64 = 0.1 * START;
/// Standard deviation of the noise that separates duplicates at the start.
const JITTER: f64 = 1e-3 * START;

/// A map.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// A position for each row of the features, the mean at the origin.
    pub points: Vec<[f64; 2]>,
    /// KL divergence of the map's affinities from those of the features, in nats: with the exact sum over all pairs.
    pub kl: f64,
    /// Perplexity as used.
    pub perplexity: f64,
    /// Iterations of the descent that was kept: fewer than asked for when the observer ended them.
    pub iterations: usize,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
}

/// Refuses settings that the configuration would refuse too.
fn check(settings: &TsneSettings) -> Result<()> {
    let refuse = |key, value: f64, hint| Err(Error::usage_hint(format!("tsne.{key} is {value}"), hint));
    if !settings.perplexity.is_finite() || settings.perplexity < 1.0 {
        return refuse("perplexity", settings.perplexity, "give a number from 1, usually 5 to 50");
    }
    match settings.learning_rate {
        Some(rate) if !rate.is_finite() || rate <= 0.0 => {
            refuse("learning_rate", rate, "give a positive number, or leave it out")
        }
        _ => Ok(()),
    }
}

/// The map of `features`, one row per point. `seed` names the random start of points that have none of their own. `observer` is
/// told of the progress and may end the descent.
///
/// # Errors
/// When a setting is out of range, there are no points, a feature is not finite, or the descent diverges.
pub fn embed(
    features: Matrix<'_>,
    settings: &TsneSettings,
    seed: u64,
    observer: &mut DescentObserver<'_>,
) -> Result<Embedding> {
    check(settings)?;
    features.check_finite(|i| format!("point {i}"))?;
    let n = features.rows();
    if n == 0 {
        return Err(DataError::invalid("there are no points to map", "give at least one image").into());
    }
    let (perplexity, warnings) = usable_perplexity(settings.perplexity, n);
    if n == 1 {
        return Ok(Embedding { points: vec![[0.0; 2]], kl: 0.0, perplexity, iterations: 0, warnings });
    }
    let neighbors = (n - 1).min((3.0 * perplexity + 1.0) as usize);
    let affinities = Affinities::new(&nearest(features, features, neighbors, Metric::Euclidean, true)?, perplexity);
    let first = start(features, seed)?;
    let descents = if n <= TWICE_UP_TO { 2 } else { 1 };
    let mut best: Option<Embedding> = None;
    for descent in 0..descents {
        let mut points = first.clone();
        if descent > 0 {
            shake(&mut points, seed);
        }
        let mut stopped = false;
        let mut watch = |iteration: usize, total: usize, kl: f64| {
            let going = observer(descent * total + iteration, descents * total, kl);
            stopped |= going.is_break();
            going
        };
        let (mut repulsion, rates) = (repulsion(settings.method, n), rates(settings, n));
        let iterations =
            descend(&mut points, &affinities, repulsion.as_mut(), (settings.iterations, rates), &mut watch)?;
        let kl = kl_divergence(&affinities, &points);
        if best.as_ref().is_none_or(|best| kl < best.kl) {
            best = Some(Embedding { points, kl, perplexity, iterations, warnings: warnings.clone() });
        }
        if stopped {
            break;
        }
    }
    best.ok_or_else(|| Error::usage("no descent was made"))
}

/// Another start close to the first: it ends in a minimum of its own.
fn shake(points: &mut [[f64; 2]], seed: u64) {
    for (i, point) in points.iter_mut().enumerate() {
        let mut stream = Stream::new(seed, Purpose::Embedding, &[i as u64, 1]);
        point.iter_mut().for_each(|value| *value += SHAKE * stream.normal());
    }
}

fn repulsion(method: TsneMethod, n: usize) -> Box<dyn Repulsion> {
    match method {
        TsneMethod::Auto if n > EXACT_UP_TO => Box::new(GridRepulsion::default()),
        TsneMethod::Auto | TsneMethod::Exact => Box::new(ExactRepulsion::default()),
        TsneMethod::Interpolation => Box::new(GridRepulsion::default()),
    }
}

/// Steps of the two phases, for the gradient with its factor 4. A step of N / exaggeration (Belkina et al. 2019) is
/// N / (4 · exaggeration) with that factor. The second phase has no exaggeration, so it allows larger steps; four times larger
/// ends 0.6 % lower at 10,000 points and yet larger no lower.
fn rates(settings: &TsneSettings, n: usize) -> [f64; 2] {
    let rate = n as f64 / (4.0 * EXAGGERATION);
    [rate, 4.0 * rate].map(|rate| settings.learning_rate.unwrap_or(rate.max(LEAST_RATE)))
}

/// A perplexity needs three times as many neighbours; with fewer points, the largest usable one, and a warning.
fn usable_perplexity(wanted: f64, n: usize) -> (f64, Vec<String>) {
    let most = ((n as f64 - 1.0) / 3.0).max(1.0);
    if wanted <= most {
        return (wanted, Vec::new());
    }
    let points = counted(n, "point");
    (most, vec![format!("a perplexity of {wanted} is too large for {points}; {most:.1} is used")])
}

/// With the sum over all pairs, whatever the number of points: a single pass is quick.
fn kl_divergence(affinities: &Affinities, points: &[[f64; 2]]) -> f64 {
    let mut rounded = vec![[0f32; 2]; points.len()];
    round(points, &mut rounded);
    let z = ExactRepulsion::default().forces(&rounded, &mut vec![[0f32; 2]; points.len()]);
    divergence(affinities, &rounded, z)
}

/// The principal coordinates, scaled down; features without variance start at random.
fn start(features: Matrix<'_>, seed: u64) -> Result<Vec<[f64; 2]>> {
    let mut points = pca::principal_coordinates(features)?;
    let variance = points.iter().map(|point| point[0] * point[0]).sum::<f64>() / points.len() as f64;
    let scale = if variance > 0.0 { START / variance.sqrt() } else { 0.0 };
    points.iter_mut().flatten().for_each(|value| *value *= scale);
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&i, &j| points[i][0].total_cmp(&points[j][0]).then(points[i][1].total_cmp(&points[j][1])));
    let duplicates: Vec<usize> =
        order.windows(2).filter(|pair| points[pair[0]] == points[pair[1]]).map(|pair| pair[1]).collect();
    let spread = if variance > 0.0 { JITTER } else { START };
    for i in duplicates {
        let mut stream = Stream::new(seed, Purpose::Embedding, &[i as u64]);
        points[i].iter_mut().for_each(|value| *value += spread * stream.normal());
    }
    Ok(points)
}

#[cfg(test)]
mod tests;
