//! Shares of right answers.

use super::Confusion;

/// Right answers / samples.
pub fn accuracy(confusion: &Confusion) -> f64 {
    confusion.correct() as f64 / confusion.total() as f64
}

/// The mean recall of the classes that have samples.
pub fn balanced_accuracy(confusion: &Confusion) -> f64 {
    let present: Vec<f64> =
        confusion.classes().filter(|&c| confusion.support(c) > 0).map(|c| confusion.recall(c)).collect();
    present.iter().sum::<f64>() / present.len() as f64
}

/// The accuracy of always answering one class: the most frequent one *of the scored split*, so that no constant
/// answer can score higher.
pub fn majority_baseline(confusion: &Confusion) -> f64 {
    let most = confusion.classes().map(|c| confusion.support(c)).max().unwrap_or(0);
    most as f64 / confusion.total() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_class_does_not_lower_balanced_accuracy() {
        let confusion = Confusion::new(&[0, 0, 0, 1], &[0, 0, 2, 1], 3);
        assert_eq!(accuracy(&confusion), 0.75);
        assert!((balanced_accuracy(&confusion) - 5.0 / 6.0).abs() < 1e-15);
    }

    #[test]
    fn the_baseline_is_the_most_frequent_class() {
        assert_eq!(majority_baseline(&Confusion::new(&[1, 1, 0], &[0, 0, 0], 2)), 2.0 / 3.0);
        assert_eq!(majority_baseline(&Confusion::new(&[1, 0], &[0, 0], 2)), 0.5);
    }
}
