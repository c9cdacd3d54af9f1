//! Accuracy against the strength of flaws: one curve per flaw, and their mean.

use super::lines::{self, XAxis};
use super::palette::{self, Mark};
use super::prelude::*;
use super::scatter::draw_shape;
use crate::metrics::Robustness;

const SIZE: (u32, u32) = (1320, 760);
const HEADER: u32 = 76;
/// Widths of the curve of a flaw and of the mean.
const LINE: u32 = 3;
const MEAN_LINE: u32 = 7;
const MARKER: f64 = 8.0;
/// The width of the legend to the right of the panel.
const LEGEND: i32 = 300;
const ROW: i32 = 48;
const SAMPLE: i32 = 56;
const GAP: i32 = 14;

/// The size of the panel drawn by itself, and the columns of the legend below it.
const PANEL: (u32, u32) = (900, 640);
const COLUMNS: usize = 2;
const MARGIN: i32 = 120;

/// One curve, from the images as they are to the strongest flaw.
struct StrengthCurve {
    name: String,
    /// None for the mean.
    mark: Option<Mark>,
    /// Strength and per cent.
    points: Vec<(f64, f64)>,
}

impl StrengthCurve {
    fn color(&self) -> RGBColor {
        self.mark.map_or(INK, |mark| mark.light)
    }

    fn stroke(&self) -> ShapeStyle {
        self.color().stroke_width(if self.mark.is_some() { LINE } else { MEAN_LINE })
    }

    fn draw_mark<B: DrawingBackend>(&self, area: &Canvas<B>, place: (i32, i32)) -> Drawn<B> {
        let Some(mark) = self.mark else { return Ok(()) };
        draw_shape(area, mark.shape, place, MARKER, ShapeStyle::from(mark.light).filled())
    }

    fn last(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.1)
    }
}

/// Every curve, the mean last so that nothing hides it.
fn curves(scores: &Robustness) -> Vec<StrengthCurve> {
    let curve = |name: &str, mark, accuracy: &[f64]| {
        let start = (0.0, 100.0 * scores.clean_accuracy);
        let rest = scores.strengths.iter().zip(accuracy).map(|(&strength, share)| (strength, 100.0 * share));
        StrengthCurve { name: printable(name), mark, points: std::iter::once(start).chain(rest).collect() }
    };
    let kinds = scores.kinds.iter().enumerate();
    let kinds = kinds.map(|(i, kind)| curve(&kind.kind, Some(palette::mark(i)), &kind.accuracy));
    kinds.chain([curve("mean", None, &scores.mean_by_strength)]).collect()
}

/// Into `panel`, a part of the whole `area`.
fn draw_curves<B: DrawingBackend>(area: &Canvas<B>, panel: &Canvas<B>, curves: &[StrengthCurve]) -> Drawn<B> {
    let values = curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let axis = XAxis { range: -0.03..1.03, name: "strength", ticks: 6, label: &|strength| format!("{strength:.1}") };
    let upwards = (lines::accuracies_from(values.fold(100.0, f64::min)), "accuracy, %");
    let mut chart = lines::draw_axes(panel, &axis, upwards)?;
    for curve in curves {
        chart.draw_series(LineSeries::new(curve.points.iter().copied(), curve.stroke()))?;
        curve.points.iter().try_for_each(|point| curve.draw_mark(area, chart.backend_coord(point)))?;
    }
    Ok(())
}

/// The curves by name, in the order in which they end, in so many columns.
fn draw_legend<B: DrawingBackend>(area: &Canvas<B>, mut curves: Vec<StrengthCurve>, columns: usize) -> Drawn<B> {
    curves.sort_by(|a, b| b.last().total_cmp(&a.last()));
    let text = style::left(TICK, INK);
    let rows = curves.len().div_ceil(columns);
    for (place, curve) in curves.iter().enumerate() {
        let (x, y) = ((place / rows) as i32 * LEGEND, ROW / 2 + (place % rows) as i32 * ROW);
        area.draw(&PathElement::new([(x, y), (x + SAMPLE, y)], curve.stroke()))?;
        curve.draw_mark(area, (x + SAMPLE / 2, y))?;
        let name = style::fit(&curve.name, TICK, LEGEND - SAMPLE - 3 * GAP);
        area.draw(&Text::new(name, (x + SAMPLE + GAP, y), text.clone()))?;
    }
    Ok(())
}

/// Accuracy against the strength of each flaw, with the mean over the flaws.
impl Picture for Titled<'_, Robustness> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn problem(&self) -> Option<String> {
        let Robustness { kinds, strengths, .. } = self.of;
        (kinds.is_empty() || strengths.is_empty()).then(|| "no flaw was tried".into())
    }

    fn draw<B: DrawingBackend>(&self, area: &Canvas<B>) -> Drawn<B> {
        let (header, below) = area.split_vertically(HEADER);
        style::draw_title(&header, self.title)?;
        let (panel, legend) = below.split_horizontally(SIZE.0 as i32 - LEGEND);
        let curves = curves(self.of);
        draw_curves(area, &panel, &curves)?;
        draw_legend(&legend, curves, 1)
    }
}

/// The picture as SVG text, without a title and with the legend below.
pub(in crate::report) fn robustness_svg(scores: &Robustness) -> Result<String, String> {
    let curves = curves(scores);
    let below = curves.len().div_ceil(COLUMNS) as u32 * ROW as u32 + MARGIN as u32;
    panel_svg((PANEL.0, PANEL.1 + below), |area| {
        let (panel, legend) = area.split_vertically(PANEL.1);
        let legend = legend.shrink((MARGIN, 0), (PANEL.0 as i32 - MARGIN, below as i32));
        draw_curves(area, &panel, &curves)?;
        draw_legend(&legend, curves, COLUMNS)
    })
}
