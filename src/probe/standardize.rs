//! Features at mean 0 and standard deviation 1, undone in the head afterwards.

use super::LinearHead;
use crate::linalg::Matrix;

/// Mean and standard deviation of each feature, as scikit-learn's `StandardScaler`.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardizer {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Standardizer {
    /// Statistics of the rows (n, d), which must be those of the training set. A feature that does not vary beyond
    /// rounding is only centred.
    pub fn fit(features: Matrix<'_>) -> Self {
        let n = features.rows().max(1) as f64;
        let mean = features.means();
        let mut squares = vec![0f64; features.cols()];
        for row in features.values().chunks_exact(features.cols()) {
            squares.iter_mut().zip(row).zip(&mean).for_each(|((sum, &x), m)| *sum += (f64::from(x) - m).powi(2));
        }
        let deviation = squares.iter().zip(&mean).map(|(sum, mean)| {
            let deviation = (sum / n).sqrt();
            // The spread of one f32 value that was rounded differently now and then.
            let rounding = f64::from(f32::EPSILON) * mean.abs();
            if deviation > rounding { deviation } else { 1.0 }
        });
        Self { deviation: deviation.collect(), mean }
    }

    /// The standardised rows, row-major.
    pub fn apply(&self, features: Matrix<'_>) -> Vec<f32> {
        let statistics = || self.mean.iter().zip(&self.deviation);
        features
            .values()
            .chunks_exact(self.mean.len().max(1))
            .flat_map(|row| row.iter().zip(statistics()).map(|(&x, (m, s))| ((f64::from(x) - m) / s) as f32))
            .collect()
    }

    /// The head on raw features that gives the logits of `head` on standardised ones: w / s and b − Σ w m / s.
    #[must_use]
    pub fn fold_into(&self, head: &LinearHead) -> LinearHead {
        let (mut weight, mut bias) = (Vec::with_capacity(head.weight.len()), Vec::with_capacity(head.bias.len()));
        for (row, &b) in head.weight.chunks_exact(self.mean.len().max(1)).zip(&head.bias) {
            let mut shift = 0f64;
            for (&w, (mean, deviation)) in row.iter().zip(self.mean.iter().zip(&self.deviation)) {
                let scaled = (f64::from(w) / deviation) as f32;
                shift += f64::from(scaled) * mean;
                weight.push(scaled);
            }
            bias.push((f64::from(b) - shift) as f32);
        }
        LinearHead { weight, bias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folded_head_takes_raw_features() {
        // The second feature is constant up to rounding, the third exactly.
        let values = [1f32, 1000.0, 5.0, 3.0, 1_000.000_06, 5.0, 8.0, 1000.0, 5.0];
        let raw = Matrix::new(&values, 3);
        let standardizer = Standardizer::fit(raw);
        let standard = standardizer.apply(raw);
        let first: Vec<f32> = standard.iter().step_by(3).copied().collect();
        assert!(first.iter().sum::<f32>().abs() < 1e-6);
        assert!((first.iter().map(|x| x * x).sum::<f32>() / 3.0 - 1.0).abs() < 1e-6);
        assert!(standard.chunks(3).all(|row| row[1].abs() < 1e-3 && row[2] == 0.0), "{standard:?}");
        let head = LinearHead { weight: vec![0.5, -1.0, 2.0, 0.1, 0.2, 0.3], bias: vec![0.25, -1.0] };
        let expected = head.logits(Matrix::new(&standard, 3)).unwrap();
        let got = standardizer.fold_into(&head).logits(raw).unwrap();
        assert!(expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-3), "{expected:?} {got:?}");
    }
}
