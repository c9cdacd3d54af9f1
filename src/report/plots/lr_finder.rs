//! Loss against the learning rate of a range test.

use plotters::coord::Shift;
use plotters::drawing::DrawingArea;
use plotters::element::Text;
use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};

use super::lines::{self, Axes, Kind, Series};
use super::style::{self, INK, TITLE};
use super::{Drawn, Picture};
use crate::report::printable;
use crate::train::lr_finder::{Point, Sweep};

const SIZE: (u32, u32) = (1160, 760);
/// Height of title and legend above the panel.
const HEADER: u32 = 130;

/// What is drawn; there is at least one point.
pub(super) struct LrFinder<'a> {
    pub(super) title: &'a str,
    pub(super) sweep: &'a Sweep,
}

impl Picture for LrFinder<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let (header, panel) = area.split_vertically(HEADER);
        let centre = SIZE.0 as i32 / 2;
        let title = style::fit(&printable(self.title), TITLE, SIZE.0 as i32 - 80);
        header.draw(&Text::new(title, (centre, 44), style::text(TITLE, INK, HPos::Center, VPos::Center)))?;
        let suggestion = self.sweep.suggestion.map(|point| format!("suggested: {:.1e}", point.lr));
        lines::draw_legend(&header, (centre, 100), &[Kind::Training], suggestion)?;
        let points = &self.sweep.points;
        let smoothed = Series::new(Kind::Training, points.iter().map(|point| (point.lr.log10(), point.smoothed)));
        let place = |point: Option<&Point>| point.map_or(0.0, |point| point.lr.log10());
        let (first, last) = (place(points.first()), place(points.last()));
        let (low, high) = lines::extremes(std::slice::from_ref(&smoothed)).unwrap_or((0.0, 1.0));
        let margin = (0.06 * (high - low)).max(1e-6);
        let axes = Axes {
            x: first - 0.1..last + 0.1,
            x_name: "learning rate",
            x_ticks: ((last - first).floor() as usize + 1).clamp(2, 12),
            x_label: &|&place| format!("{:.0e}", 10f64.powf(place)),
            y: low - margin..high + margin,
            y_name: "smoothed loss",
        };
        lines::draw_panel(&panel, &axes, self.sweep.suggestion.map(|point| point.lr.log10()), &[smoothed])
    }
}
