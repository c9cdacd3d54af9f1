//! Loss and accuracy of the means between the weights before and after fine-tuning, side by side.

use super::lines::{self, Measure, Series, SeriesKind, XAxis};
use super::prelude::*;
use crate::train::wise_ft::{MeanScore, WiseFtRecord};

const SIZE: (u32, u32) = (1720, 760);

/// Loss and accuracy on the validation images along the line from the weights before training to those after it; the mean
/// that was kept is marked.
impl Picture for Titled<'_, WiseFtRecord> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        self.of.curve.is_empty().then(|| "no mean was scored".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let kept = format!("kept: {:.2}", self.of.alpha);
        let panels = lines::draw_header(area, self.title, &[SeriesKind::Validation], Some(kept))?;
        let (left, right) = panels.split_horizontally(SIZE.0 / 2);
        let axis = XAxis {
            range: -0.03..1.03,
            name: "share of the fine-tuned weights",
            ticks: 6,
            label: &|share| format!("{share:.1}"),
        };
        let marked = Some(self.of.alpha);
        lines::draw_measure(&left, Measure::Loss, &axis, marked, &[series(self.of, |mean| mean.val_loss)])?;
        lines::draw_measure(
            &right,
            Measure::Accuracy,
            &axis,
            marked,
            &[series(self.of, |mean| 100.0 * mean.val_accuracy)],
        )
    }
}

fn series(record: &WiseFtRecord, value: fn(&MeanScore) -> f64) -> Series {
    Series::new(SeriesKind::Validation, record.curve.iter().map(|mean| (mean.alpha, value(mean))))
}
