//! Loss against the learning rate of a range test.

use super::lines::{self, Series, SeriesKind, XAxis};
use super::prelude::*;
use crate::train::lr_finder::{Sweep, SweepPoint};

const SIZE: (u32, u32) = (1160, 760);

/// The losses; the suggested rate is marked.
impl Picture for Titled<'_, Sweep> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        self.of.points.is_empty().then(|| "no step was taken".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let suggestion = self.of.suggestion.map(|point| format!("suggested: {:.1e}", point.lr));
        let panel = lines::draw_header(area, self.title, &[SeriesKind::Training], suggestion)?;
        let points = &self.of.points;
        let smoothed = Series::new(SeriesKind::Training, points.iter().map(|point| (point.lr.log10(), point.smoothed)));
        let place = |point: Option<&SweepPoint>| point.map_or(0.0, |point| point.lr.log10());
        let (first, last) = (place(points.first()), place(points.last()));
        let (low, high) = lines::extremes(std::slice::from_ref(&smoothed)).unwrap_or((0.0, 1.0));
        let margin = (0.06 * (high - low)).max(1e-6);
        let axis = XAxis {
            range: first - 0.1..last + 0.1,
            name: "learning rate",
            ticks: ((last - first).floor() as usize + 1).clamp(2, 12),
            label: &|&place| format!("{:.0e}", 10f64.powf(place)),
        };
        let upwards = (low - margin..high + margin, "smoothed loss");
        lines::draw_panel(&panel, &axis, upwards, self.of.suggestion.map(|point| point.lr.log10()), &[smoothed])
    }
}
