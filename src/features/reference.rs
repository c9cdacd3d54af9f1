//! The reference set: features of training images, to tell known from unknown images by deep nearest
//! neighbours (Sun et al. 2022). The distance of an image is that to its k-th nearest training image among features of
//! unit length; the larger, the less the model knows about it, however confident its probabilities are.

use crate::error::{Error, Result, WeightsError};
use crate::linalg::neighbors::{Base, Metric, Neighbors};
use crate::linalg::{Matrix, tally};
use crate::system::digest::sha256;
use crate::system::files::{read_regular, write_atomic};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// The tensor of the file, and the entry of its metadata with the names as a JSON list.
const FEATURES: &str = "features";
const NAMES: &str = "names";

/// The reference set of a run, in `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReferenceRecord {
    /// The distance is that to the k-th nearest training image.
    pub k: usize,
    /// Training images in the set.
    pub images: usize,
    /// Images farther away are unknown; none without validation images.
    pub threshold: Option<f64>,
    /// The expected share of images like those of training that count as known. It is what was requested,
    /// or the most that so many validation images can guarantee.
    pub passing: Option<f64>,
    /// Validation images that the threshold was chosen on.
    pub chosen_on: usize,
    /// SHA-256 of the file with the features.
    pub sha256: String,
}

/// How far an image is from the training images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// To the k-th nearest, from 0 to 2.
    pub distance: f64,
    /// The nearest training image.
    pub nearest: usize,
}

/// Training images by name, with features of unit length.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceSet {
    base: Base<'static>,
    names: Vec<String>,
}

impl ReferenceSet {
    /// The set of n named images with features (n, width).
    ///
    /// # Errors
    /// When features are not finite, naming the image.
    pub fn new(features: Matrix<'_>, names: Vec<String>) -> Result<Self> {
        features.check_finite(|i| names.get(i).cloned().unwrap_or_default())?;
        Ok(Self { base: Base::new(unit_rows(features), features.cols(), Metric::Euclidean), names })
    }

    /// Images.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of an image.
    pub fn name(&self, image: usize) -> &str {
        self.names.get(image).map_or("", String::as_str)
    }

    /// How far each row of `queries` is from the images, by the `k`-th nearest or the farthest of fewer.
    ///
    /// # Errors
    /// When there are no images, or the rows have another width.
    pub fn distances(&self, queries: Matrix<'_>, k: usize) -> Result<Vec<Distance>> {
        let found = self.nearest(queries, k)?;
        let distance = |i: usize| {
            let (squared, nearest) = (found.distances_of(i).last(), found.of(i).first());
            match (squared, nearest) {
                (Some(&squared), Some(&nearest)) => {
                    Ok(Distance { distance: f64::from(squared).sqrt(), nearest: nearest as usize })
                }
                _ => Err(Error::usage("there is no training image to compare with")),
            }
        };
        (0..queries.rows()).map(distance).collect()
    }

    /// The `n` nearest images of each row of `queries`, or fewer, the nearest first.
    ///
    /// # Errors
    /// When there are no images, or the rows have another width.
    pub fn neighbors(&self, queries: Matrix<'_>, n: usize) -> Result<Vec<Vec<usize>>> {
        let found = self.nearest(queries, n)?;
        Ok((0..queries.rows()).map(|i| found.of(i).iter().map(|&image| image as usize).collect()).collect())
    }

    fn nearest(&self, queries: Matrix<'_>, n: usize) -> Result<Neighbors> {
        let of_unit_length = unit_rows(queries);
        self.base.nearest(Matrix::new(&of_unit_length, queries.cols()), n.max(1), false)
    }

    /// Writes the file; its SHA-256.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<String> {
        let features = self.base.matrix();
        let failed = |reason: String| Error::io("write", path)(std::io::Error::other(reason));
        let view =
            TensorView::new(Dtype::F32, vec![self.len(), features.cols()], bytemuck::cast_slice(features.values()));
        let view = view.map_err(|error| failed(error.to_string()))?;
        let names = serde_json::to_string(&self.names).map_err(|error| failed(error.to_string()))?;
        let metadata = HashMap::from([(NAMES.to_owned(), names)]);
        let file = serialize([(FEATURES, view)], Some(metadata)).map_err(|error| failed(error.to_string()))?;
        write_atomic(path, &file)?;
        Ok(sha256(&file))
    }

    /// Reads a file of [`ReferenceSet::write`] whose SHA-256 is known, with features of `width` values.
    ///
    /// # Errors
    /// An I/O error when it cannot be read, a weights error when it is not as it was written.
    pub fn read(path: &Path, sum: &str, width: usize) -> Result<Self> {
        let file = read_regular(path).map_err(Error::io("read", path))?;
        let invalid = |reason: String| WeightsError::invalid(path, reason);
        if sha256(&file) != sum {
            return Err(invalid("is not the file that the run was saved with".into()).into());
        }
        let (_, header) = SafeTensors::read_metadata(&file).map_err(|error| invalid(error.to_string()))?;
        let names = header.metadata().as_ref().and_then(|entries| entries.get(NAMES));
        let names: Vec<String> = names.and_then(|names| serde_json::from_str(names).ok()).unwrap_or_default();
        let tensors = SafeTensors::deserialize(&file).map_err(|error| invalid(error.to_string()))?;
        let features = tensors.tensor(FEATURES).map_err(|error| invalid(error.to_string()))?;
        if features.dtype() != Dtype::F32 || features.shape() != [names.len(), width] {
            let message =
                format!("holds {:?} {:?}, expected F32 {:?}", features.dtype(), features.shape(), [names.len(), width]);
            return Err(invalid(message).into());
        }
        let value = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        let values: Vec<f32> = features.data().chunks_exact(size_of::<f32>()).map(value).collect();
        if !values.iter().all(|value| value.is_finite()) {
            return Err(invalid("holds features that are not finite".into()).into());
        }
        Ok(Self { base: Base::new(values, width, Metric::Euclidean), names })
    }
}

/// At most `most` of the images with these labels, which are below `classes`: all images of the small classes, and equally
/// many of each of the others, one at least, evenly spread over their order.
pub fn spread(labels: &[usize], classes: usize, most: usize) -> Vec<usize> {
    let counts = tally(labels.iter().copied(), classes);
    let (mut ascending, mut room, mut share) = (counts.clone(), most, usize::MAX);
    ascending.sort_unstable();
    for (i, count) in ascending.into_iter().enumerate() {
        let equal = room / (classes - i);
        if count > equal {
            share = equal.max(1);
            break;
        }
        room -= count;
    }
    let mut seen = vec![0; classes];
    let kept = |&image: &usize| {
        let label = labels[image];
        let (n, rank) = (counts[label], seen[label]);
        seen[label] += 1;
        let share = share.min(n);
        (rank + 1) * share / n > rank * share / n
    };
    (0..labels.len()).filter(kept).collect()
}

/// Rows of unit length; a row of zeros stays one.
fn unit_rows(matrix: Matrix<'_>) -> Vec<f32> {
    let mut values = matrix.values().to_vec();
    for row in values.chunks_exact_mut(matrix.cols()) {
        let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
    values
}

/// The distance that images like the validation images exceed with probability at most 1 − `quantile`, and the share that
/// is thereby guaranteed (split conformal prediction, Vovk et al. 2005): with n distances no more than n / (n + 1), which
/// the largest of them gives. None without distances.
pub fn passing_distance(mut distances: Vec<f64>, quantile: f64) -> Option<(f64, f64)> {
    distances.sort_by(f64::total_cmp);
    let n = distances.len();
    // The rank of the order statistic; what a product leaves above a whole number is rounding.
    let rank = ((quantile * (n + 1) as f64 - 1e-9).ceil() as usize).max(1);
    let largest = *distances.last()?;
    Some(distances.get(rank - 1).map_or((largest, n as f64 / (n + 1) as f64), |&distance| (distance, quantile)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use std::fs;

    fn images(rows: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Init, &[]);
        (0..rows * width).map(|_| stream.normal() as f32).collect()
    }

    fn known(values: &[f32], width: usize) -> ReferenceSet {
        let names = (0..values.len() / width).map(|i| format!("train/ä \"{i}\".png")).collect();
        ReferenceSet::new(Matrix::new(values, width), names).unwrap()
    }

    #[test]
    fn distances_are_those_of_the_definition() {
        let (base, queries) = (images(40, 6, 1), images(9, 6, 2));
        let known = known(&base, 6);
        let unit = |row: &[f32]| {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter().map(|x| x / norm).collect::<Vec<f32>>()
        };
        for k in [1, 5, 40, 100] {
            let found = known.distances(Matrix::new(&queries, 6), k).unwrap();
            for (query, found) in queries.chunks_exact(6).zip(found) {
                let distance = |(i, row): (usize, &[f32])| {
                    let squared: f32 = unit(row).iter().zip(unit(query)).map(|(a, b)| (a - b) * (a - b)).sum();
                    (f64::from(squared).sqrt(), i)
                };
                let mut all: Vec<(f64, usize)> = base.chunks_exact(6).enumerate().map(distance).collect();
                all.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!((all[k.min(40) - 1].0 - found.distance).abs() < 1e-6);
                assert_eq!(all[0].1, found.nearest);
            }
            let listed = known.neighbors(Matrix::new(&queries, 6), k).unwrap();
            let nearest = known.distances(Matrix::new(&queries, 6), k).unwrap();
            assert!(listed.iter().all(|images| images.len() == k.min(40)));
            assert!(listed.iter().zip(&nearest).all(|(images, found)| images[0] == found.nearest));
        }
        // Length does not count, an image of the set is at distance 0, and a vector of zeros at distance 1.
        let scaled: Vec<f32> = base[..6].iter().map(|x| x * 7.0).collect();
        let found = known.distances(Matrix::new(&scaled, 6), 1).unwrap()[0];
        assert!(found.distance < 1e-6 && found.nearest == 0);
        assert!((known.distances(Matrix::new(&[0.0; 6], 6), 1).unwrap()[0].distance - 1.0).abs() < 1e-6);
        assert!(known.distances(Matrix::new(&[0.0; 4], 4), 1).is_err());
    }

    #[test]
    fn a_file_comes_back_and_damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.safetensors");
        let written = known(&images(7, 5, 3), 5);
        let sum = written.write(&path).unwrap();
        let read = ReferenceSet::read(&path, &sum, 5).unwrap();
        assert_eq!((read.name(6), read.len()), ("train/ä \"6\".png", 7));
        assert_eq!(read, written);
        assert!(ReferenceSet::read(&path, &sum, 6).unwrap_err().to_string().contains("expected F32 [7, 6]"));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(ReferenceSet::read(&path, &sum, 5).unwrap_err().exit_code() as u8, 4);
        fs::write(&path, &bytes[..20]).unwrap();
        assert_eq!(ReferenceSet::read(&path, &sha256(&bytes[..20]), 5).unwrap_err().exit_code() as u8, 4);
        assert_eq!(ReferenceSet::read(&folder.path().join("none"), &sum, 5).unwrap_err().exit_code() as u8, 5);
        assert!(
            ReferenceSet::new(Matrix::new(&[f32::NAN], 1), vec!["a.png".into()])
                .unwrap_err()
                .to_string()
                .contains("a.png")
        );
    }

    #[test]
    fn of_large_classes_equally_many_are_kept() {
        let labels: Vec<usize> = (0..1000).map(|i| if i % 100 == 7 { 1 } else { 2 * (i % 2) }).collect();
        let counts = |kept: &[usize]| [0, 1, 2, 3].map(|class| kept.iter().filter(|&&i| labels[i] == class).count());
        assert_eq!(spread(&labels, 4, 1000), (0..1000).collect::<Vec<_>>());
        let kept = spread(&labels, 4, 111);
        assert_eq!(counts(&kept), [50, 10, 50, 0]);
        // Evenly spread: one of each ten.
        let first: Vec<usize> = kept.iter().copied().filter(|&i| labels[i] == 0).collect();
        assert!(first.windows(2).all(|pair| (18..=22).contains(&(pair[1] - pair[0]))), "{first:?}");
        assert_eq!(counts(&spread(&labels, 4, 1)), [1, 1, 1, 0]);
        assert!(spread(&[], 0, 5).is_empty());
    }

    #[test]
    fn the_threshold_promises_what_its_images_support() {
        let distances = |n: usize| (1..=n).map(|i| i as f64).collect::<Vec<_>>();
        assert_eq!(passing_distance(distances(999), 0.99), Some((990.0, 0.99)));
        assert_eq!(passing_distance(distances(99), 0.99), Some((99.0, 0.99)));
        assert_eq!(passing_distance(distances(98), 0.99), Some((98.0, 98.0 / 99.0)));
        assert_eq!(passing_distance(distances(9), 0.5), Some((5.0, 0.5)));
        assert_eq!(passing_distance(distances(1), 0.01), Some((1.0, 0.01)));
        assert_eq!(passing_distance(Vec::new(), 0.99), None);
    }
}
