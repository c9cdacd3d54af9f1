//! What a t-SNE map says about the classes, in words.

use crate::system::shown::printable;

/// Above this mean silhouette of the map, classes form islands (Kaufman and Rousseeuw 1990 call it a reasonable
/// structure); below [`MIXED`], they lie among each other.
const CLUSTERED: f64 = 0.5;
const MIXED: f64 = 0.25;

/// How well classes are separated on a map, as silhouettes from -1 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Names of the classes.
    pub classes: &'a [String],
    /// Mean over all points of the map.
    pub mean: f64,
    /// Mean of each class; none for a class without points.
    pub per_class: &'a [Option<f64>],
}

impl Reading<'_> {
    /// `clustered`, `overlapping` or `mixed`.
    pub fn word(&self) -> &'static str {
        if self.mean >= CLUSTERED {
            "clustered"
        } else if self.mean >= MIXED {
            "overlapping"
        } else {
            "mixed"
        }
    }

    /// Two sentences at most: the whole, and the class that stands out as worst.
    pub fn sentence(&self) -> String {
        let whole = match self.word() {
            "clustered" => "the classes form clusters of their own: a linear probe should tell most of them apart",
            "overlapping" => {
                "the classes form clusters that overlap at their borders: training the last blocks may separate them"
            }
            _ => {
                "the classes are mixed on this map: near images are often of other classes. A linear probe may tell them \
                 apart all the same, by directions that a map does not show: see what it scores before you try another \
                 backbone or layer"
            }
        };
        let worst = self
            .per_class
            .iter()
            .zip(self.classes)
            .filter_map(|(silhouette, class)| silhouette.map(|silhouette| (silhouette, class)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        match worst {
            Some((silhouette, class)) if silhouette < self.mean - 0.1 => {
                format!("{whole}. {} is separated least (silhouette {silhouette:.2})", printable(class))
            }
            _ => whole.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_follow_the_silhouettes() {
        let classes = ["good".to_owned(), "scratch".to_owned()];
        let reading = |mean, per_class: &[Option<f64>]| {
            let reading = Reading { classes: &classes, mean, per_class };
            (reading.word(), reading.sentence())
        };
        assert_eq!(reading(0.7, &[Some(0.7), Some(0.7)]).0, "clustered");
        assert!(reading(0.3, &[Some(0.5), Some(0.1)]).1.contains("scratch is separated least (silhouette 0.10)"));
        let (word, sentence) = reading(-0.1, &[Some(-0.1), None]);
        assert!(word == "mixed" && !sentence.contains("least"), "{sentence}");
        // A map of two axes is no proof against a linear classifier of hundreds.
        assert!(!sentence.contains("do not separate") && sentence.contains("A linear probe may"), "{sentence}");
    }
}
