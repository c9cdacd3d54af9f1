//! Loss and accuracy over the epochs, side by side.

use super::lines::{self, Measure, Series, SeriesKind, XAxis};
use super::prelude::*;
use crate::train::progress::EpochRecord;

const SIZE: (u32, u32) = (1720, 760);
/// The size of a panel drawn by itself.
const PANEL: (u32, u32) = (900, 700);

/// Loss and accuracy over the epochs; a value that is not finite leaves a gap.
pub struct Curves<'a> {
    /// Above the picture.
    pub title: &'a str,
    /// In their order.
    pub epochs: &'a [EpochRecord],
    /// The one that is marked.
    pub best_epoch: Option<usize>,
}

impl Picture for Curves<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        self.epochs.is_empty().then(|| "no epoch has ended yet".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let panels = lines::draw_header(area, self.title, self.kinds(), self.best())?;
        let (left, right) = panels.split_horizontally(SIZE.0 / 2);
        self.draw_measure(&left, Measure::Loss)?;
        self.draw_measure(&right, Measure::Accuracy)
    }
}

/// Loss or accuracy over the epochs as SVG text. There is at least one epoch.
pub(in crate::report) fn curve_svg(
    epochs: &[EpochRecord],
    best_epoch: Option<usize>,
    measure: Measure,
) -> Result<String, String> {
    let curves = Curves { title: "", epochs, best_epoch };
    panel_svg(PANEL, |area| curves.draw_measure(&lines::draw_key(area, curves.kinds(), curves.best())?, measure))
}

impl Curves<'_> {
    fn series(&self, kind: SeriesKind, value: fn(&EpochRecord) -> Option<f64>) -> Series {
        Series::new(kind, self.epochs.iter().map(|e| (e.epoch as f64, value(e).unwrap_or(f64::NAN))))
    }

    fn best(&self) -> Option<String> {
        self.best_epoch.map(|epoch| format!("best epoch: {epoch}"))
    }

    fn draw_measure<B: DrawingBackend>(&self, area: &Canvas<B>, measure: Measure) -> Drawn<B> {
        let (first, last) = style::extremes(self.epochs.iter().map(|e| e.epoch as f64));
        let axis = XAxis {
            range: first - 0.5..last + 0.5,
            name: "epoch",
            ticks: (last - first + 1.0).min(10.0) as usize,
            label: &|epoch| format!("{epoch:.0}"),
        };
        let marked = self.best_epoch.map(|epoch| epoch as f64);
        let values: [fn(&EpochRecord) -> Option<f64>; 2] = match measure {
            Measure::Loss => [|e| Some(e.train_loss), |e| e.val_loss],
            Measure::Accuracy => [|e| Some(100.0 * e.train_accuracy), |e| e.val_accuracy.map(|share| 100.0 * share)],
        };
        let series = [self.series(SeriesKind::Training, values[0]), self.series(SeriesKind::Validation, values[1])];
        lines::draw_measure(area, measure, &axis, marked, &series)
    }

    fn kinds(&self) -> &'static [SeriesKind] {
        let validated = self.epochs.iter().any(|e| e.val_loss.is_some() || e.val_accuracy.is_some());
        if validated { &[SeriesKind::Training, SeriesKind::Validation] } else { &[SeriesKind::Training] }
    }
}
