//! The confusion matrix and everything that follows from it alone.

/// Counts (k, k): rows are true classes, columns predicted ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    counts: Vec<Vec<u64>>,
}

/// The confusions of a matrix whose rows are true classes, the commonest first and, among equals, those of the first
/// classes: images, true class, predicted class.
pub fn confusions(counts: &[Vec<u64>]) -> Vec<(u64, usize, usize)> {
    let pairs = counts.iter().enumerate().flat_map(|(truth, row)| {
        let wrong = row.iter().enumerate().filter(move |(predicted, count)| *predicted != truth && **count > 0);
        wrong.map(move |(predicted, &count)| (count, truth, predicted))
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    pairs
}

impl Confusion {
    /// Counts pairs of true and predicted class. Pairs with a class not below `classes` are the caller's bug and are
    /// not counted.
    pub fn new(truth: &[usize], predicted: &[usize], classes: usize) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (&t, &p) in truth.iter().zip(predicted) {
            if let Some(count) = counts.get_mut(t).and_then(|row: &mut Vec<u64>| row.get_mut(p)) {
                *count += 1;
            }
        }
        Self { counts }
    }

    /// The matrix, row by row.
    pub fn into_counts(self) -> Vec<Vec<u64>> {
        self.counts
    }

    /// The class indices.
    pub fn classes(&self) -> std::ops::Range<usize> {
        0..self.counts.len()
    }

    /// All samples.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Samples on the diagonal.
    pub fn correct(&self) -> u64 {
        self.classes().map(|c| self.counts[c][c]).sum()
    }

    /// Samples of class `c`.
    pub fn support(&self, c: usize) -> u64 {
        self.counts[c].iter().sum()
    }

    /// Samples predicted as class `c`.
    pub fn predicted(&self, c: usize) -> u64 {
        self.counts.iter().map(|row| row[c]).sum()
    }

    /// Right among those predicted as `c`; 0 when there are none.
    pub fn precision(&self, c: usize) -> f64 {
        ratio(self.counts[c][c], self.predicted(c))
    }

    /// Found among those of class `c`; 0 when there are none.
    pub fn recall(&self, c: usize) -> f64 {
        ratio(self.counts[c][c], self.support(c))
    }

    /// Harmonic mean of precision and recall of class `c`; 0 when the class occurs nowhere.
    pub fn f1(&self, c: usize) -> f64 {
        ratio(2 * self.counts[c][c], self.support(c) + self.predicted(c))
    }

    /// Right answers / samples.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.total() as f64
    }

    /// The mean recall of the classes that have samples.
    pub fn balanced_accuracy(&self) -> f64 {
        let present = self.classes().filter(|&c| self.support(c) > 0);
        mean(present.map(|c| self.recall(c))).unwrap_or(f64::NAN)
    }

    /// The accuracy of always answering one class: the most frequent one *of the scored split*, so that no constant
    /// answer can score higher.
    pub fn majority_baseline(&self) -> f64 {
        let most = self.classes().map(|c| self.support(c)).max().unwrap_or(0);
        most as f64 / self.total() as f64
    }

    /// Mean F1 over the classes that occur among labels or predictions, as scikit-learn takes it.
    pub fn macro_f1(&self) -> f64 {
        let occurring = self.classes().filter(|&c| self.support(c) + self.predicted(c) > 0);
        mean(occurring.map(|c| self.f1(c))).unwrap_or(f64::NAN)
    }

    /// Mean F1 weighted by the samples of each class.
    pub fn weighted_f1(&self) -> f64 {
        self.classes().map(|c| self.support(c) as f64 * self.f1(c)).sum::<f64>() / self.total() as f64
    }

    /// Matthews' correlation coefficient for k classes (Gorodkin 2004); 0 when labels or predictions are constant.
    pub fn mcc(&self) -> f64 {
        let n = self.total() as f64;
        let covariance = self.correct() as f64 * n - self.chance_agreement();
        let spread = |marginal: fn(&Self, usize) -> u64| {
            n * n - self.classes().map(|c| (marginal(self, c) as f64).powi(2)).sum::<f64>()
        };
        let product = spread(Self::support) * spread(Self::predicted);
        if product == 0.0 { 0.0 } else { covariance / product.sqrt() }
    }

    /// Cohen's kappa: agreement beyond chance. Undefined when labels and predictions are one and the same class.
    pub fn kappa(&self) -> Option<f64> {
        let n = self.total() as f64;
        let chance = self.chance_agreement();
        let room = n * n - chance;
        (room != 0.0).then(|| (self.correct() as f64 * n - chance) / room)
    }

    /// Σ support × predicted: n² times the agreement expected of independent answers.
    fn chance_agreement(&self) -> f64 {
        self.classes().map(|c| self.support(c) as f64 * self.predicted(c) as f64).sum()
    }
}

/// The mean; none without values.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0_u32), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_true_and_columns_predicted() {
        let confusion = Confusion::new(&[0, 0, 1], &[1, 0, 1], 2);
        assert_eq!((confusion.precision(1), confusion.recall(0)), (0.5, 0.5));
        assert_eq!(confusion.into_counts(), [vec![1, 1], vec![0, 1]]);
    }

    #[test]
    fn an_absent_class_does_not_lower_balanced_accuracy() {
        let confusion = Confusion::new(&[0, 0, 0, 1], &[0, 0, 2, 1], 3);
        assert_eq!(confusion.accuracy(), 0.75);
        assert!((confusion.balanced_accuracy() - 5.0 / 6.0).abs() < 1e-15);
    }

    #[test]
    fn the_baseline_is_the_most_frequent_class() {
        assert_eq!(Confusion::new(&[1, 1, 0], &[0, 0, 0], 2).majority_baseline(), 2.0 / 3.0);
        assert_eq!(Confusion::new(&[1, 0], &[0, 0], 2).majority_baseline(), 0.5);
    }

    #[test]
    fn constant_answers_are_worth_nothing() {
        let confusion = Confusion::new(&[0, 1, 1], &[1, 1, 1], 2);
        assert_eq!((confusion.mcc(), confusion.kappa()), (0.0, Some(0.0)));
        assert_eq!(Confusion::new(&[1, 1], &[1, 1], 2).kappa(), None);
    }

    proptest! {
        #[test]
        fn sums_agree(pairs in prop::collection::vec((0..5_usize, 0..5_usize), 1..60)) {
            let (truth, predicted): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let confusion = Confusion::new(&truth, &predicted, 5);
            prop_assert_eq!(confusion.total(), truth.len() as u64);
            prop_assert_eq!(confusion.classes().map(|c| confusion.support(c)).sum::<u64>(), truth.len() as u64);
            prop_assert_eq!(confusion.classes().map(|c| confusion.predicted(c)).sum::<u64>(), truth.len() as u64);
            prop_assert!((-1.0 - 1e-12..=1.0 + 1e-12).contains(&confusion.mcc()));
        }
    }
}
