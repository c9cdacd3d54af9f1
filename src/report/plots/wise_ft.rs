//! Loss and accuracy of the means between the weights before and after fine-tuning, side by side.

use super::lines::{self, Axes, Series, SeriesKind};
use super::prelude::*;
use crate::train::wise_ft::{MeanScore, WiseFtRecord};

const SIZE: (u32, u32) = (1720, 760);

/// Loss and accuracy on the validation images along the line from the weights before training to those after it; the mean
/// that was kept is marked.
pub struct Means<'a> {
    /// Above the picture.
    pub title: &'a str,
    /// The means.
    pub record: &'a WiseFtRecord,
}

impl Picture for Means<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        self.record.curve.is_empty().then(|| "no mean was scored".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let kept = format!("kept: {:.2}", self.record.alpha);
        let panels = lines::draw_header(area, self.title, &[SeriesKind::Validation], Some(kept))?;
        let (left, right) = panels.split_horizontally(SIZE.0 / 2);
        let loss = [self.series(|mean| mean.val_loss)];
        self.draw_panel(&left, "loss", lines::loss_range(&loss), &loss)?;
        let accuracy = [self.series(|mean| 100.0 * mean.val_accuracy)];
        self.draw_panel(&right, "accuracy, %", lines::accuracy_range(&accuracy), &accuracy)
    }
}

impl Means<'_> {
    fn series(&self, value: fn(&MeanScore) -> f64) -> Series {
        Series::new(SeriesKind::Validation, self.record.curve.iter().map(|mean| (mean.alpha, value(mean))))
    }

    fn draw_panel<B: DrawingBackend>(
        &self,
        area: &Canvas<B>,
        y_name: &str,
        y: Range<f64>,
        series: &[Series],
    ) -> Drawn<B> {
        let axes = Axes {
            x: -0.03..1.03,
            x_name: "share of the fine-tuned weights",
            x_ticks: 6,
            x_label: &|share| format!("{share:.1}"),
            y,
            y_name,
        };
        lines::draw_panel(area, &axes, Some(self.record.alpha), series)
    }
}
