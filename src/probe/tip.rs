//! Tip-Adapter without training (Zhang et al. 2022): in addition to the texts, every training image votes for its
//! class, the nearer the stronger. Logits are those of the texts plus α Σ exp(-β (1 - cosine)) over the images of a class.
//!
//! α and β are chosen on held-out images, by accuracy and among equals by cross-entropy. (The reference chooses a range for
//! each data set by hand; one grid covers them all here.)

use super::Samples;
use super::head::{LinearHead, first_largest};
use super::path::{Score, Scored, Selection, SettingScore, ValidationSamples};
use crate::error::{Error, Result};
use crate::linalg::Matrix;
use rayon::prelude::*;

/// Queries whose cosines with all training images are held at once.
const BLOCK: usize = 512;

/// Texts and votes on embeddings of unit length.
#[derive(Debug, Clone, PartialEq)]
pub struct Tip {
    /// Embeddings to the logits of the texts.
    pub texts: LinearHead,
    /// Weight of the votes.
    pub alpha: f64,
    /// Sharpness: how much more the nearest images count.
    pub beta: f64,
}

/// The values of α and β to choose from, each ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct TipGrid {
    /// Weights of the votes.
    pub alphas: Vec<f64>,
    /// Sharpnesses of the votes.
    pub betas: Vec<f64>,
}

impl Tip {
    /// Logits (n, K) of queries (n, d) when `cache` votes.
    ///
    /// # Errors
    /// A usage error when the widths differ.
    pub fn logits(&self, cache: &Samples<'_>, queries: Matrix<'_>) -> Result<Vec<f32>> {
        let width = queries.cols();
        let mut logits = self.texts.logits(queries)?;
        let blocks = logits.chunks_mut(BLOCK * cache.classes()).zip(queries.values().chunks(BLOCK * width));
        for (logits, queries) in blocks {
            let cosines = cosines(cache, Matrix::new(queries, width))?;
            let votes = votes(&cosines, cache, self.beta, None);
            logits.iter_mut().zip(votes).for_each(|(logit, vote)| *logit += self.alpha as f32 * vote);
        }
        Ok(logits)
    }

    /// Chooses α and β for samples of unit length. The path has one point for each β, with the α that is best for it;
    /// training images are scored without their own vote.
    ///
    /// # Errors
    /// A usage error when the grid is empty, or when folds or widths do not fit.
    pub fn select(
        texts: &LinearHead,
        train: &Samples<'_>,
        validation: &ValidationSamples<'_>,
        grid: &TipGrid,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(Selection, Self)> {
        let mut cells = vec![Scored::default(); grid.alphas.len() * grid.betas.len()];
        if cells.is_empty() {
            return Err(Error::usage_hint("there is no value to try", "give at least one α and one β"));
        }
        let folds = validation.count(train)?;
        for fold in 0..folds {
            let mut storage = (Vec::new(), Vec::new());
            let (cache, held_out) = validation.split(train, fold, &mut storage);
            let inside = score(texts, &cache, &cache, true, grid)?;
            let outside = score(texts, &cache, &held_out, false, grid)?;
            for (cell, (inside, outside)) in cells.iter_mut().zip(inside.into_iter().zip(outside)) {
                let ranked = outside.means(held_out.len());
                cell.add(&Score::of_votes(inside.means(cache.len()).0, ranked.0, ranked));
            }
            progress(fold + 1, folds);
        }
        let rows = cells.chunks_exact(grid.alphas.len()).zip(&grid.betas);
        let best_alpha = |(row, &beta): (&[Scored], &f64)| {
            Selection::best(row.iter().map(|cell| cell.clone().point(beta)).collect())
        };
        let rows: Vec<Selection> = rows.map(best_alpha).collect();
        let best_of_row = |row: &Selection| -> SettingScore { row.path[row.chosen].clone() };
        let selection = Selection::best(rows.iter().map(best_of_row).collect());
        let alpha = grid.alphas[rows[selection.chosen].chosen];
        let tip = Self { texts: texts.clone(), alpha, beta: selection.setting() };
        Ok((selection, tip))
    }
}

/// What one setting scored on some samples.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    right: usize,
    /// Sum of the cross-entropies.
    loss: f64,
}

/// Tallies of queries for each β and, within it, each α. `own` when the queries are the cache.
fn score(
    texts: &LinearHead,
    cache: &Samples<'_>,
    queries: &Samples<'_>,
    own: bool,
    grid: &TipGrid,
) -> Result<Vec<Tally>> {
    let (width, classes) = (queries.features().cols(), cache.classes());
    let logits = texts.logits(queries.features())?;
    let mut tallies = vec![Tally::default(); grid.alphas.len() * grid.betas.len()];
    for start in (0..queries.len()).step_by(BLOCK) {
        let end = (start + BLOCK).min(queries.len());
        let block = Matrix::new(&queries.features().values()[start * width..end * width], width);
        let (cosines, labels) = (cosines(cache, block)?, &queries.labels()[start..end]);
        let logits = &logits[start * classes..end * classes];
        tallies.par_chunks_mut(grid.alphas.len()).zip(&grid.betas).for_each(|(row, &beta)| {
            let votes = votes(&cosines, cache, beta, own.then_some(start));
            for (tally, &alpha) in row.iter_mut().zip(&grid.alphas) {
                tally.add(logits, &votes, alpha as f32, labels);
            }
        });
    }
    Ok(tallies)
}

impl Tally {
    /// Accuracy and cross-entropy of so many samples.
    fn means(&self, samples: usize) -> (f64, f64) {
        let samples = samples.max(1) as f64;
        (self.right as f64 / samples, self.loss / samples)
    }

    /// Counts samples with logits and votes (n, K).
    fn add(&mut self, logits: &[f32], votes: &[f32], alpha: f32, labels: &[usize]) {
        let classes = logits.len() / labels.len().max(1);
        let mut row = vec![0f32; classes];
        for ((logits, votes), &label) in logits.chunks_exact(classes).zip(votes.chunks_exact(classes)).zip(labels) {
            row.iter_mut().zip(logits.iter().zip(votes)).for_each(|(sum, (logit, vote))| *sum = logit + alpha * vote);
            let largest = first_largest(&row);
            let total: f64 = row.iter().map(|&logit| f64::from(logit - row[largest]).exp()).sum();
            self.right += usize::from(largest == label);
            self.loss += total.ln() - f64::from(row[label] - row[largest]);
        }
    }
}

/// Cosines (n, voters) of queries (n, d) with the cache.
fn cosines(cache: &Samples<'_>, queries: Matrix<'_>) -> Result<Vec<f32>> {
    LinearHead { weight: cache.features().values().to_vec(), bias: vec![0.0; cache.len()] }.logits(queries)
}

/// Votes (n, K): for each class the sum of exp(-β (1 - cosine)) over its images. When `own` says at which voter the
/// queries begin, each is left out of its own vote, and the others of its class make up for it: otherwise wide votes would
/// always go to another class.
fn votes(cosines: &[f32], cache: &Samples<'_>, beta: f64, own: Option<usize>) -> Vec<f32> {
    let (beta, classes) = (beta as f32, cache.classes());
    let mut votes = vec![0f32; cosines.len() / cache.len() * classes];
    let counts = cache.counts();
    for (i, (row, cosines)) in votes.chunks_exact_mut(classes).zip(cosines.chunks_exact(cache.len())).enumerate() {
        for (j, (&cosine, &label)) in cosines.iter().zip(cache.labels()).enumerate() {
            if own.is_none_or(|start| start + i != j) {
                row[label] += (beta * (cosine - 1.0)).exp();
            }
        }
        if let Some(start) = own {
            let label = cache.labels()[start + i];
            row[label] *= counts[label] as f32 / (counts[label] - 1).max(1) as f32;
        }
    }
    votes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::folds::assign_folds;
    use crate::rng::{Purpose, Stream};

    fn names() -> [String; 2] {
        ["a".to_owned(), "b".to_owned()]
    }

    #[test]
    fn an_empty_grid_is_refused() {
        let names = names();
        let (train, labels) = circle(8, 0);
        let train = Samples::new(Matrix::new(&train, 2), &labels, &names).unwrap();
        let grid = TipGrid { alphas: Vec::new(), ..grid() };
        let refused = Tip::select(&texts(), &train, &ValidationSamples::HeldOut(&train), &grid, &mut |_, _| ());
        assert!(refused.unwrap_err().to_string().contains("no value to try"));
    }

    /// Unit vectors at an angle around 0.2 or 0.9, by class.
    fn circle(n: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
        let mut stream = Stream::new(seed, Purpose::Init, &[]);
        let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
        let unit = |&label: &usize| {
            let angle = 0.2 + 0.7 * label as f64 + 0.1 * stream.normal();
            [angle.cos() as f32, angle.sin() as f32]
        };
        (labels.iter().flat_map(unit).collect(), labels)
    }

    /// Texts that take nearly everything for the first class.
    fn texts() -> LinearHead {
        LinearHead { weight: vec![20.0, 4.0, 0.0, 10.0], bias: vec![0.0, 0.0] }
    }

    fn grid() -> TipGrid {
        TipGrid { alphas: vec![0.0, 1.0, 10.0], betas: vec![0.5, 5.0, 50.0] }
    }

    #[test]
    fn logits_by_hand() {
        let (values, names) = ([1f32, 0.0, 0.6, 0.8, 0.0, 1.0], names());
        let cache = Samples::new(Matrix::new(&values, 2), &[0, 1, 1], &names).unwrap();
        let tip = Tip { texts: texts(), alpha: 2.0, beta: 3.0 };
        let logits = tip.logits(&cache, Matrix::new(&[0.0, 1.0], 2)).unwrap();
        let expected = [4.0 + 2.0 * (-3f32).exp(), 10.0 + 2.0 * (1.0 + (-0.6f32).exp())];
        assert!(logits.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{logits:?}");
        assert!(tip.logits(&cache, Matrix::new(&[0.0, 1.0, 0.0], 3)).is_err());
    }

    #[test]
    fn what_is_chosen_scores_as_the_path_says() {
        let names = names();
        let ((train, labels), (held, held_labels)) = (circle(60, 0), circle(30, 1));
        let train = Samples::new(Matrix::new(&train, 2), &labels, &names).unwrap();
        let held = Samples::new(Matrix::new(&held, 2), &held_labels, &names).unwrap();
        let folds = assign_folds(&labels, &names, None, 3, Stream::new(0, Purpose::Folds, &[])).unwrap();
        for validation in [ValidationSamples::HeldOut(&held), ValidationSamples::Folds(&folds)] {
            let (selection, tip) = Tip::select(&texts(), &train, &validation, &grid(), &mut |_, _| ()).unwrap();
            let chosen = &selection.path[selection.chosen];
            assert_eq!((selection.path.len(), chosen.setting), (3, tip.beta));
            assert!(tip.alpha > 0.0, "the texts alone are right about half");
            assert!(chosen.validation_accuracy > 0.9 && chosen.train_accuracy > 0.9, "{chosen:?}");
            assert!(selection.path.iter().all(|point| point.validation_accuracy <= chosen.validation_accuracy));
            if let ValidationSamples::HeldOut(held) = validation {
                let mut tally = Tally::default();
                let logits = tip.logits(&train, held.features()).unwrap();
                tally.add(&logits, &vec![0.0; logits.len()], 0.0, held.labels());
                assert!((tally.right as f64 / 30.0 - chosen.validation_accuracy).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn no_image_votes_for_itself() {
        // Each image lies among those of the other class, and alone in a sharp vote that counted itself.
        let (values, names) = ([1f32, 0.0, 0.9999, 0.014_14, 0.0, 1.0, 0.014_14, 0.9999], names());
        let train = Samples::new(Matrix::new(&values, 2), &[0, 1, 0, 1], &names).unwrap();
        let grid = TipGrid { alphas: vec![1.0], betas: vec![100.0] };
        let silent = LinearHead { weight: vec![0.0; 4], bias: vec![0.0; 2] };
        let (selection, _) =
            Tip::select(&silent, &train, &ValidationSamples::HeldOut(&train), &grid, &mut |_, _| ()).unwrap();
        assert_eq!((selection.path[0].train_accuracy, selection.path[0].validation_accuracy), (0.0, 1.0));
    }

    #[test]
    fn a_vote_of_all_alike_is_no_vote_against_the_own_class() {
        let names = names();
        let (train, labels) = circle(20, 3);
        let train = Samples::new(Matrix::new(&train, 2), &labels, &names).unwrap();
        let cosines = cosines(&train, train.features()).unwrap();
        for (row, &label) in votes(&cosines, &train, 1e-6, Some(0)).chunks(2).zip(&labels) {
            assert!((row[label] - row[1 - label]).abs() < 1e-3, "{row:?}");
        }
    }
}
